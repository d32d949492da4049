"""What may serve, and what did, in words for people."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from raypipe.data.digest import short

if TYPE_CHECKING:
    from raypipe.registry.audit import Audit
    from raypipe.registry.ledger import Entry
    from raypipe.registry.lifecycle import Releases


def history(releases: Releases) -> str:
    """A line an entry, oldest first."""
    if not releases.own:
        return "no entry yet: raypipe run"
    rows = [("entry", "at (UTC)", "action", "version", "verdict", "who", "why")]
    rows += [_row(entry) for entry in releases.own]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join("  ".join([*map(str.ljust, row[:6], widths), row[6]]).rstrip() for row in rows)


def _row(entry: Entry) -> tuple[str, ...]:
    change = entry.change
    numbers = [str(number) for number in (change.from_, change.to) if number is not None]
    verdict = change.evidence.verdict if change.evidence else ""
    removed = ", ".join(f"{len(names)} {kind}" for kind, names in change.removed.items())
    return (
        str(entry.number), _time(entry.at), change.action, " -> ".join(numbers), verdict, entry.who,
        change.reason or removed,
    )  # fmt: skip


def served(releases: Releases, at: datetime) -> str:
    """Which version was champion at that time, and what put it there."""
    entry = releases.served(at)
    if entry is None:
        return f"no version of {releases.model} was champion at {_time(at)}"
    change, following = entry.change, [e for e in releases.moves if e.number > entry.number]
    until = f"until {_time(following[0].at)}, {following[0].words()}" if following else "until now"
    lines = [
        f"{releases.model} version {change.to}",
        f"by           {change.action}, ledger entry {entry.number}",
        f"from         {_time(entry.at)} {until}",
        f"instead of   {'no version' if change.from_ is None else f'version {change.from_}'}",
        f"who          {entry.who}",
    ]
    if change.reason:
        lines.append(f"why          {change.reason}")
    if change.evidence:
        told = change.evidence
        lines.append(f"verdict      {told.verdict}, evaluation {short(told.evaluation)}")
        lines.append(f"bundle       {told.bundle}")
    return "\n".join(lines)


def audited(made: Audit) -> str:
    """What is wrong, each with what was expected and got, and what was checked."""
    lines = []
    for each in made.found:
        lines += [each.what, f"  where: {each.where}", f"  expected: {each.expected}", f"  got: {each.got}"]
    checked = f"{made.model}: {made.entries} entries, {made.versions} versions"
    lines.append(f"{checked}: {len(made.found)} findings" if made.found else f"{checked}: all is as recorded")
    return "\n".join([*lines, f"last entry {made.head}"] if made.head else lines)


def collected(document: dict[str, Any]) -> str:
    """What was removed, by kind, and what it freed."""
    kinds: dict[str, list[int]] = {}
    for each in document["removed"]:
        kinds.setdefault(each["kind"], []).append(each["bytes"])
    lines = [f"{kind:<14}{len(sizes):>7,}{sum(sizes) / 2**20:>12,.1f} MiB" for kind, sizes in kinds.items()]
    freed = f"{document['bytes'] / 2**20:,.1f} MiB"
    kept = ", ".join(map(str, document["kept_versions"])) or "none"
    said = f"would free {freed}" if document["dry_run"] else f"freed {freed}"
    return "\n".join([*lines, f"{said if lines else 'nothing to remove'}; kept what versions {kept} are made of"])


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"

"""What a contract's policy says of broken rules. Pure: counts in, verdict out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from raypipe.data.rules import PRIMARY_KEY
from raypipe.definitions import Source
from raypipe.definitions.source import FRESHNESS
from raypipe.errors import DataContractError
from raypipe.project.source_settings import Contract


@dataclass(frozen=True)
class Broken:
    """Rows of one file that broke exactly these rules, with the numbers of the first of them in the file."""

    rules: tuple[str, ...]
    rows: int
    file: str
    first: tuple[int, ...]


def kept_rules(source: Source, policy: Contract) -> list[str]:
    """The rules whose rows stay where they are."""
    return [rule for rule in source.rule_names() if policy.of(rule) == "warn" and rule != FRESHNESS]


def count_by_rule(broken: Sequence[Broken]) -> dict[str, int]:
    """Rows that broke each rule, most first."""
    counts: Counter[str] = Counter()
    for one in broken:
        counts.update(dict.fromkeys(one.rules, one.rows))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def require_allowed(source: Source, policy: Contract, broken: Sequence[Broken], total: int) -> None:
    """Raise DataContractError where the policy refuses `broken` rows of `total`."""
    counts = count_by_rule(broken)
    _require_usable(source, policy, counts)
    refused = {rule for rule in counts if policy.of(rule) == "refuse"}
    if refused:
        raise _refusal(source, broken, refused, total, "none")
    own = {rule: p.max_share for rule, p in policy.rules.items() if p.max_share is not None}
    for rule, count in counts.items():
        if rule in own and policy.of(rule) == "quarantine" and count / total > own[rule]:
            raise _refusal(source, broken, {rule}, total, _at_most(own[rule], count / total))
    shared = {rule for rule in counts if policy.of(rule) == "quarantine" and rule not in own}
    aside = sum(one.rows for one in broken if shared & set(one.rules))
    if aside and aside / total > policy.max_share:
        raise _refusal(source, broken, shared, total, _at_most(policy.max_share, aside / total))


def _require_usable(source: Source, policy: Contract, counts: dict[str, int]) -> None:
    """A row without a clock has no place in time, two rows of one static entity would multiply others, and of two
    corrections at one time neither is the later."""
    needed = [f"{column}|nullability" for column in source.clocks()]
    needed += [PRIMARY_KEY] if source.static or source.corrections else []
    unusable = [rule for rule in needed if rule in counts and policy.of(rule) == "warn"]
    if unusable:
        raise DataContractError(
            "rows that break these rules cannot be kept",
            where=f"source '{source.name}'",
            got="; ".join(f"{rule}: {counts[rule]}" for rule in unusable),
            hint=f"mend the rows, or set them aside: {_setting(source, unusable[0])}",
        )


def _refusal(source: Source, broken: Sequence[Broken], rules: set[str], total: int, expected: str) -> DataContractError:
    chosen = [one for one in broken if rules & set(one.rules)]
    file = min(one.file for one in chosen)
    there = [one for one in chosen if one.file == file]
    rows, shown = sum(one.rows for one in chosen), sorted({row for one in there for row in one.first})[:5]
    more = " ..." if rows > len(shown) else ""
    counts = {rule: count for rule, count in count_by_rule(chosen).items() if rule in rules}
    return DataContractError(
        f"{rows} of {total} rows break the contract {source.contract.__name__}",
        where=f"source '{source.name}', file {file}, rows {', '.join(map(str, shown))}{more}",
        got="; ".join(f"{rule}: {count}" for rule, count in counts.items()),
        expected=expected,
        hint=f"mend the rows, or set them aside: {_setting(source, next(iter(counts)))}",
    )


def _at_most(bound: float, share: float) -> str:
    return f"at most a share of {bound} (it is {share:.4f})"


def _setting(source: Source, rule: str) -> str:
    return f"sources.{source.name}.contract.rules.{rule}.on_violation: quarantine in project.yaml"

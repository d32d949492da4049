"""Remove what nothing needs: what no version is made of that an alias, a rollback or the ledger's last entries name.

What was written within a day stays, with all that it was made from: a killed run continues with it. Sources, tuning
studies, scores, the online state, MLflow's store and the ledger itself are not touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from raypipe.data.publish import ABANDONED_AFTER_S, MANIFEST, find
from raypipe.evaluation.evaluate import RESULT
from raypipe.registry.bundle import STAGING
from raypipe.registry.lifecycle import Releases
from raypipe.registry.registered_model import Version

OUTPUTS = ("evaluations", "runs", "training_sets", "features")  # each names what it was made from further on
REMAINS = ("checkpoints", "score_chunks")  # of work that is done, or was given up
KINDS = ("bundles", *OUTPUTS, *REMAINS, "leftovers")
_PUBLISHED = (*OUTPUTS, "tuning", "scores", "score_chunks", "sources/*/parts", "sources/*/snapshots")  # have attempts
Needed = Mapping[str, set[str]]


@dataclass(frozen=True)
class Garbage:
    """A folder that nothing needs."""

    kind: str
    path: Path
    size_bytes: int


def kept_versions(releases: Releases, versions: Sequence[Version], keep: int) -> list[Version]:
    """Those that an alias names, the one that a rollback returns to, and the last `keep` ones. Pure."""
    newest = [version.version for version in versions][:keep]
    kept = {releases.champion, releases.previous, *releases.recent(keep), *newest}
    return [version for version in versions if version.aliases or version.version in kept]


def garbage(storage: Path, versions: Sequence[Version], now: float) -> list[Garbage]:
    """What can go, if these versions shall serve and be reproduced. now: seconds since 1970."""
    needed = _needed(storage, versions, now)
    found = [
        Garbage(kind, path, _size(path))
        for kind in ("bundles", *OUTPUTS)
        for path in _folders(storage, kind)
        if path.name not in needed[kind] and _is_old(path, now)
    ]
    found += [Garbage(k, p, _size(p)) for k in REMAINS for p in _folders(storage, k) if _is_old(p, now)]
    gone = {each.path for each in found}
    leftovers = (p for p in _leftovers(storage) if _is_old(p, now) and p.parent not in gone)
    return found + [Garbage("leftovers", path, _size(path)) for path in leftovers]


def remove(each: Garbage) -> None:
    """Remove a folder; whoever is killed here leaves a leftover, which is no output any more."""
    path = each.path
    if each.kind == "bundles":
        path = path.rename(path.with_name(f"{STAGING}{path.name}"))
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)


def _needed(storage: Path, versions: Sequence[Version], now: float) -> Needed:
    """Names of outputs by kind, with what they were made from."""
    needed = {kind: {p.name for p in _folders(storage, kind) if not _is_old(p, now)} for kind in ("bundles", *OUTPUTS)}
    needed["bundles"] |= {version.bundle_digest for version in versions}
    needed["evaluations"] |= {version.evaluation for version in versions}
    needed["runs"] |= {version.run_digest for version in versions}
    for name in needed["evaluations"]:
        output = find(storage / "evaluations" / name)
        if output:
            needed["runs"].add(orjson.loads(output.path(RESULT).read_bytes())["run"]["digest"])
    for name in needed["runs"]:
        output = find(storage / "runs" / name)
        if output:
            needed["training_sets"].add(output.manifest["training_set"])
    for name in needed["training_sets"]:
        output = find(storage / "training_sets" / name)
        if output:
            needed["features"] |= {file["name"].split("/")[0] for file in output.manifest["files"]}
    return needed


def _folders(storage: Path, kind: str) -> list[Path]:
    return sorted(path for path in storage.glob(f"{kind}/*") if path.is_dir() and not path.name.startswith("."))


def _leftovers(storage: Path) -> Iterator[Path]:
    """What killed commands left: attempts that are not published, staged bundles, scratch folders."""
    for kind in _PUBLISHED:
        for folder in _folders(storage, kind):
            output = find(folder)
            kept = output.manifest["attempt"] if output else None
            yield from (path for path in folder.glob("attempt-*") if path.name != kept)
    yield from storage.glob(f"bundles/{STAGING}*")
    yield from _folders(storage, "scratch")


def _is_old(folder: Path, now: float) -> bool:
    """Whether nothing in it was written within a day."""
    return now - max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) > ABANDONED_AFTER_S


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

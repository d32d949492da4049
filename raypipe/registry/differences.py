"""What differs between a registered version, as its bundle records it, and what is found or built again. Pure.

Each function compares one step and returns a `Finding`, whose details name each difference. Circumstances that may
change bits and need not (libraries, the commit, settings that are not used) are noted; they are no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from raypipe.data.digest import short
from raypipe.definitions.expressions import from_json
from raypipe.errors import BundleError
from raypipe.registry.document_changes import ABSENT, NOTHING, Path, changes, in_words

Document = Mapping[str, Any]

TOLERANCE = 1e-3  # of a metric, relative, where another number of workers may round other trees
_EXPRESSIONS = {"expressions", "derive", "rules"}  # of a view or a source, by name
_NO_PART = {"storage", "registry", "serving", "lineage"}
_PARAMS = ("training", "params")
_OF_LABEL = {"prediction_time", "target", "weight", "base_margin", "group"}


@dataclass(frozen=True)
class Finding:
    """One step: what was recorded and what is now, in short, and each difference in words."""

    step: str
    verdict: Literal["same", "differs", "noted", "not rebuilt"]
    recorded: str = ""
    rebuilt: str = ""
    details: tuple[str, ...] = ()


def compared(
    step: str, recorded: str, rebuilt: str, details: Sequence[str], *, verdict: Literal["differs", "noted"] = "differs"
) -> Finding:
    """`verdict` where there are details, else the same."""
    return Finding(step, verdict if details else "same", recorded, rebuilt, tuple(details))


# ---- circumstances -----------------------------------------------------------------------------


def code(recorded: Document, now: Document) -> Finding:
    """Two answers of `code_identity`. Noted."""
    details = []
    if recorded["commit"] is None:
        details.append("the version was made outside of git: which code that was is not recorded")
    elif recorded["commit"] != now["commit"]:
        details.append(f"commit {recorded['commit']} -> {now['commit'] or NOTHING}")
    for when, identity in (("at the time", recorded), ("now", now)):
        if identity["dirty"]:
            changes = ", ".join(change.strip() for change in identity["changes"])
            details.append(f"the project's folder had changes that no commit holds, {when}: {changes}")
    return compared("code", _commit(recorded), _commit(now), details, verdict="noted")


def _commit(identity: Document) -> str:
    changed = ", changed" if identity["dirty"] else ""
    return f"commit {short(identity['commit'])}{changed}" if identity["commit"] else "not in git"


def libraries(recorded: Document, now: Document) -> Finding:
    """Versions by name. Noted, as other versions may change bits."""
    details = [in_words((), change) for change in changes(recorded, now)]
    return compared("libraries", f"{len(recorded)} versions", _count(details, "other"), details, verdict="noted")


def same_names(recorded: Document, now: Document) -> bool:
    """Whether digests that name outputs can be compared: they cover the versions of these libraries."""
    return all(recorded.get(name) == now.get(name) for name in ("raypipe", "polars", "xgboost"))


def configuration(recorded: Document, now: Document, *, tuning: str | None = None) -> Finding:
    """Settings of project.yaml that have a part in a version. Noted, as the recorded ones are used.

    tuning: the digest of the study that found the version's training.params, which project.yaml never had.
    """
    found = [change for change in changes(recorded, now) if change[0][0] not in _NO_PART]
    details = [in_words((), change) for change in found if not (tuning and change[0][:2] == _PARAMS)]
    source = f"project.yaml, parameters of study {short(tuning)}" if tuning else "project.yaml"
    rebuilt = _count(details, "changed since; the recorded ones are used")
    return compared("configuration", source, rebuilt, details, verdict="noted")


def definitions(recorded: Document, digest: str, document: Document) -> Finding:
    """`recorded`: digest and document at the time; `digest` and `document`: features.py as it is now."""
    details = [_definition(change) for change in changes(recorded["document"], document, whole=_is_expression)]
    if recorded["digest"] != digest and not details:
        details.append("the order of sources or views")
    return compared("definitions", short(recorded["digest"]), short(digest), details)


def _is_expression(path: Path) -> bool:
    """Whether a document of Polars stands at that place of the definitions."""
    match path:
        case ("label", role):
            return role in _OF_LABEL
        case ("sources" | "views", _, kind, _):
            return kind in _EXPRESSIONS
        case ("views", _, "aggregations", _, "input"):
            return True
    return False


def _definition(change: tuple[Path, Any, Any]) -> str:
    path, before, after = change
    if not _is_expression(path):
        return in_words((), change)
    texts = _expression(before), _expression(after)
    if texts[0] == texts[1]:  # Polars prints some alike
        return "; ".join(in_words(path, inside) for inside in changes(before, after))
    return in_words((), (path, *texts))


def _expression(document: Any) -> Any:
    """As Polars prints it, where this version of Polars can read it; what is none stays as it is."""
    if document is None or document is ABSENT:
        return document
    try:
        return str(from_json(document, where="lineage.json"))
    except BundleError:
        return orjson.dumps(document).decode()


def own_code(recorded: Document, now: Document) -> Finding:
    """Digests of the modules that hold the project's own objective and metric."""
    details = [f"the module of training.{path[0]} has changed" for path, _, _ in changes(recorded, now)]
    return compared("own code", _digests(recorded), _digests(now), details)


def _digests(named: Document) -> str:
    return ", ".join(f"{name} {short(digest)}" for name, digest in named.items() if digest) or NOTHING


# ---- data --------------------------------------------------------------------------------------


def snapshots(recorded: Mapping[str, Document], rebuilt: Mapping[str, Document | str]) -> Finding:
    """Sources by name: manifests of their snapshots, or why there is none."""
    details = []
    for name, manifest in recorded.items():
        found = rebuilt.get(name, "features.py declares no such source now")
        now = _files({} if isinstance(found, str) else found)
        if isinstance(found, str):
            details.append(f"{name}: {found}")
        elif found["version"] != manifest["version"]:
            details.append(f"{name}: version {manifest['version']} -> {found['version']}")
        details += [f"{name}: {words}" for words in _file_changes(_files(manifest), now)]
    there = {name: found for name, found in rebuilt.items() if not isinstance(found, str)}
    return compared("snapshot", _sizes(recorded), _sizes(there), details)


def _files(manifest: Document) -> dict[str, Document]:
    return {file["name"]: file for file in [*manifest.get("files", []), *manifest.get("corrupt", [])]}


def _file_changes(before: Mapping[str, Document], after: Mapping[str, Document]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            yield f"{name} is {'new' if old is None else 'gone'}: {_file(new or old or {})}"
        elif old["sha256"] != new["sha256"]:
            yield f"{name} has changed: {_file(old)} -> {_file(new)}"
        elif old.get("constants") != new.get("constants"):
            yield f"{name} lies in another partition: {old.get('constants')} -> {new.get('constants')}"


def _file(document: Document) -> str:
    rows = f"{document['rows']:,} rows" if "rows" in document else document["problem"]
    return f"{document['bytes']:,} bytes, {rows}, sha256 {short(document['sha256'])}"


def _sizes(manifests: Mapping[str, Document]) -> str:
    files = [file for manifest in manifests.values() for file in _files(manifest).values()]
    return f"{len(files)} files, {sum(file.get('rows', 0) for file in files):,} rows"


def prepared(recorded: Mapping[str, Document], rebuilt: Mapping[str, Document], *, names: bool) -> Finding:
    """Sources by name after their contracts: digest, rows, rows that broke each rule. `names`: digests count."""
    ours, theirs = (
        {
            name: {"rows": s["rows"], "violations": s["violations"]} | ({"digest": short(s["digest"])} if names else {})
            for name, s in found.items()
        }
        for found in (recorded, rebuilt)
    )
    details = [in_words((), change) for change in changes(ours, theirs)]
    return compared("contracts", _prepared(recorded), _prepared(rebuilt), details)


def _prepared(sources: Mapping[str, Document]) -> str:
    broken = sum(sum(source["violations"].values()) for source in sources.values())
    return f"{sum(source['rows'] for source in sources.values()):,} rows" + (f", {broken:,} broken" if broken else "")


def training_set(recorded: str, rebuilt: str, *, names: bool) -> Finding:
    """The names of two training sets; compared where `names` says that they can be."""
    if not names:
        details = ["libraries of other versions name it otherwise; its content is compared below"]
        return compared("training set", short(recorded), short(rebuilt), details, verdict="noted")
    details = [] if recorded == rebuilt else ["it is made from other sources, definitions or settings: see above"]
    return compared("training set", short(recorded), short(rebuilt), details)


def partitions(recorded: Sequence[Document], rebuilt: Sequence[Document]) -> Finding:
    """Rows and bytes of the training set's partitions."""
    before, after = (
        {f"{p['part']} from {p['from'].removesuffix('+00:00')}": p for p in found} for found in (recorded, rebuilt)
    )
    details = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            details.append(f"{name} is {'new' if old is None else 'gone'}: {(new or old or {})['rows']:,} rows")
        elif old["rows"] != new["rows"]:
            details.append(f"{name}: {old['rows']:,} rows -> {new['rows']:,}")
        elif old["sha256"] != new["sha256"]:
            details.append(f"{name}: other bytes, {old['rows']:,} rows")
    return compared("features", _partitions(recorded), _partitions(rebuilt), details)


def _partitions(found: Sequence[Document]) -> str:
    return f"{len(found)} partitions, {sum(partition['rows'] for partition in found):,} rows"


def transforms(recorded: Document, rebuilt: Document) -> Finding:
    """What was learned on the training split, by feature."""
    details = [in_words((), change) for change in changes(recorded, rebuilt)]
    if not details and list(recorded["features"]) != list(rebuilt["features"]):
        details.append("the order of features")
    sizes = [f"{len(document['features'])} features" for document in (recorded, rebuilt)]
    return compared("transforms", sizes[0], sizes[1], details)


# ---- the run -----------------------------------------------------------------------------------


def layout(recorded: str, rebuilt: str, why: str) -> Finding:
    """Workers and threads in words, and `why` others had to be taken (empty: the same)."""
    return compared("workers", recorded, rebuilt, [why] if why else [], verdict="noted")


def parameters(recorded: Document, rebuilt: Document) -> Finding:
    """XGBoost's parameters, but for the threads, which `layout` speaks of."""
    ours, theirs = ({k: v for k, v in given.items() if k != "nthread"} for given in (recorded, rebuilt))
    details = [in_words((), change) for change in changes(ours, theirs)]
    return compared("parameters", f"{len(ours)} set", f"{len(theirs)} set", details)


def history(recorded: Document, rebuilt: Document, *, other_workers: bool) -> Finding:
    """The metric on validation after each round (`metric`, `history`, `best_round`); with another number of workers, at
    the best round and within `TOLERANCE`."""
    before, after = recorded["history"], rebuilt["history"]
    best = [run["history"][run["best_round"]] for run in (recorded, rebuilt)]
    words = [f"{run['metric']} {run['history'][run['best_round']]:.6g}" for run in (recorded, rebuilt)]
    if before == after:
        return compared("validation", words[0], words[1], [])
    at = next((n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), None)
    details = [] if at is None else [f"round {at + 1} is the first that differs: {before[at]!r} -> {after[at]!r}"]
    if len(before) != len(after):
        details.append(f"{len(before)} rounds -> {len(after)}")
    off = abs(best[0] - best[1]) / max(abs(best[0]), 1e-12)
    near = other_workers and off <= TOLERANCE
    if other_workers:
        judged = "within" if near else "more than"
        details.append(f"worker count changed: {off:.1e} apart at the best round, {judged} {TOLERANCE:g}")
    return compared("validation", words[0], words[1], details, verdict="noted" if near else "differs")


def _count(details: Sequence[str], what: str) -> str:
    return f"{len(details)} {what}" if details else "the same"

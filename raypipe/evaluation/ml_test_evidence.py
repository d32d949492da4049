"""What the artifacts of a release show of single tests of the ML Test Score. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.data.digest import short
from raypipe.evaluation.names import LOWER_IS_BETTER, METRICS

Document = Mapping[str, Any]

_SLICES, _FAIRNESS = ("slice.", "worst_slices."), ("fairness.",)  # figures of the gate's rules


@dataclass(frozen=True)
class Evidence:
    """The documents of a release; what is empty or None does not exist.

    version: its number. metrics, lineage: the bundle's metrics.json and lineage.json. tuning: tuning.json of the study
    that the lineage names. reproduction: the record of a `raypipe reproduce` of the version. ledger: its entries,
    oldest first.
    """

    version: int
    metrics: Document
    lineage: Document
    tuning: Document | None = None
    reproduction: Document | None = None
    ledger: Sequence[Document] = ()


@dataclass(frozen=True)
class Shown:
    """What a test counts (0, 1/2 or 1), and the artifact and figure that say so (or what is lacking there)."""

    points: float
    by: str


Judge = Callable[[Evidence], Shown]


def nothing(evidence: Evidence) -> Shown:  # noqa: ARG001 (a judge)
    """No artifact of a release shows this yet."""
    return Shown(0, "not shown: no such record exists")


def _lacking(what: str) -> Shown:
    return Shown(0, f"not shown: {what}")


# ---- data --------------------------------------------------------------------------------------


def schema(evidence: Evidence) -> Shown:
    declared = {source["name"]: source["rules"] for source in evidence.lineage["definitions"]["document"]["sources"]}
    checked = {name: source["violations"] for name, source in evidence.lineage["sources"].items()}
    without = sorted(name for name, rules in declared.items() if not rules or name not in checked)
    if without:
        return _lacking(f"lineage.json has no rules of {', '.join(without)}")
    rules = sum(len(found) for found in declared.values())
    broken = sum(sum(found.values()) for found in checked.values())
    return Shown(1, f"lineage.json: {rules} rules of {_some(list(declared))}, broken {broken:,} times")


def beneficial(evidence: Evidence) -> Shown:
    found = evidence.metrics.get("usefulness") or []
    untold = set(evidence.metrics.get("importance") or {}) - {feature["feature"] for feature in found}
    if not found or untold:
        return _lacking(f"metrics.json: usefulness of {len(found)} features, {len(untold)} without")
    useless = [feature["feature"] for feature in found if feature["useless"]]
    if useless:
        return Shown(0, f"metrics.json: usefulness: {len(useless)} of {len(found)} are useless: {_some(useless)}")
    return Shown(1, f"metrics.json: usefulness: none of {len(found)} features is useless")


def cost(evidence: Evidence) -> Shown:
    found = evidence.metrics.get("usefulness") or []
    told = [f for f in found if f.get("bytes") is not None]
    if not found or len(told) < len(found):
        return _lacking(f"metrics.json: bytes of {len(told)} of {len(found)} features")
    useless = [f for f in found if f["useless"]]
    if useless:
        wasted = sum(f["bytes"] for f in useless)
        return Shown(0, f"metrics.json: usefulness: {len(useless)} useless features cost {wasted:,} bytes")
    return Shown(0.5, f"metrics.json: usefulness: {len(found)} features cost {sum(f['bytes'] for f in found):,} bytes")


def requirements(evidence: Evidence) -> Shown:
    told = (evidence.metrics.get("data") or {}).get("leakage") or {}
    probes, found = told.get("probes") or {}, told.get("found") or []
    looked = [name for name, probe in probes.items() if not probe.get("because")]
    if not looked:
        return _lacking("metrics.json: no leakage probe looked at the data")
    if found:
        features = _some([str(finding["feature"]) for finding in found])
        return Shown(0, f"metrics.json: data: {len(found)} findings of leakage: {features}")
    return Shown(1, f"metrics.json: data: {len(looked)} of {len(probes)} leakage probes could look and found nothing")


# ---- model -------------------------------------------------------------------------------------


def checked_in(evidence: Evidence) -> Shown:
    code = evidence.lineage["code"]
    if code["commit"] is None:
        return _lacking("lineage.json: code outside of git")
    if code["dirty"]:
        return Shown(0, f"lineage.json: commit {short(code['commit'])} and {len(code['changes'])} changes beside it")
    return Shown(0.5, f"lineage.json: commit {short(code['commit'])}, no changes beside it")


def tuned(evidence: Evidence) -> Shown:
    study, found = evidence.lineage["training"].get("tuning"), evidence.tuning
    if not study or found is None:
        return _lacking("lineage.json names no study" if not study else f"study {short(study)} has gone")
    edges = [edge["name"] for edge in found["edges"] if not edge["limit"]]
    if edges or found["rounds_exhausted"]:
        why = f"{_some(edges)} on an edge" if edges else "the best round is close to the last"
        return Shown(0, f"tuning.json of study {short(study)}: {why}")
    return Shown(1, f"tuning.json of study {short(study)}: {len(found['space'])} searched, none on an edge")


def staleness(evidence: Evidence) -> Shown:
    found = evidence.metrics.get("backtest") or {}
    origins, ages = found.get("origins") or [], found.get("by_age") or []
    if len(origins) < 2 or len(ages) < 2:
        return _lacking(f"metrics.json: backtest of {len(origins)} origins and {len(ages)} ages")
    days = found.get("staleness_days")
    said = found.get("because") or "no age is too old" if days is None else f"stale after {days:g} days"
    return Shown(1, f"metrics.json: backtest: {len(origins)} origins, {len(ages)} ages: {said}")


def simpler(evidence: Evidence) -> Shown:
    metric = METRICS[evidence.metrics["task"]][0]
    compared = evidence.metrics.get("comparisons") or {}
    names = list(evidence.metrics["baselines"])
    told = {name: compared.get(name, {}).get(metric, {}).get("difference") or [None] for name in names}
    lacking = [name for name, difference in told.items() if None in difference]
    if not names or lacking:
        return _lacking(f"metrics.json: no comparison of {metric} with {_some(lacking) or 'any baseline'}")
    sign = -1 if metric in LOWER_IS_BETTER else 1
    as_good = [name for name, (_, low, high) in told.items() if min(sign * low, sign * high) <= 0]
    intervals = ", ".join(f"{name} [{low:.4g}, {high:.4g}]" for name, (_, low, high) in told.items())
    said = f"metrics.json: comparisons: {metric} minus that of {intervals}"
    return Shown(0, f"{said}: {_some(as_good)} may be as good") if as_good else Shown(1, said)


def slices(evidence: Evidence) -> Shown:
    rules = _passed(evidence, _SLICES)
    if rules:
        return Shown(1, f"metrics.json: verdict: {_some(rules)} passed")
    worst, measured = evidence.metrics.get("worst_slices") or {}, evidence.metrics.get("slices") or {}
    found = worst.get("found") or []
    if found:
        return Shown(0, f"metrics.json: worst_slices: {len(found)} of {worst['tested']} are worse than the rest")
    if worst.get("tested"):
        return Shown(1, f"metrics.json: worst_slices: none of {worst['tested']} tested is worse than the rest")
    told = [column for column, values in measured.items() if any(value.get("intervals") for value in values)]
    if told:
        return Shown(0.5, f"metrics.json: slices by {_some(told)} with intervals, judged by no rule")
    return _lacking("metrics.json: no slice with an interval")


def inclusion(evidence: Evidence) -> Shown:
    found = evidence.metrics.get("fairness") or {}
    if not found:
        return _lacking("metrics.json: no fairness")
    rules = _passed(evidence, _FAIRNESS)
    if rules:
        return Shown(1, f"metrics.json: verdict: {_some(rules)} passed")
    return Shown(0.5, f"metrics.json: fairness by {_some(list(found))}, judged by no rule")


def _passed(evidence: Evidence, prefixes: tuple[str, ...]) -> list[str]:
    """The gate's rules over such figures, if there are any and all passed."""
    findings = evidence.metrics.get("verdict", {}).get("findings") or []
    named = [finding for finding in findings if finding["rule"].lstrip().startswith(prefixes)]
    return [finding["rule"] for finding in named] if all(f["outcome"] == "pass" for f in named) else []


# ---- infrastructure ----------------------------------------------------------------------------


def reproduced(evidence: Evidence) -> Shown:
    found = evidence.reproduction
    if found is None:
        return _lacking("this version was never built again")
    if not found["equal"]:
        return Shown(0, f"reproduction of {found['at']}: not equal")
    return Shown(0.5, f"reproduction of {found['at']}: equal")


def validated(evidence: Evidence) -> Shown:
    verdict = evidence.metrics.get("verdict") or {"outcome": "none", "findings": []}
    measured = [f for f in verdict["findings"] if f["got"] is not None and f["bound"] is not None]
    if verdict["outcome"] != "pass" or not measured:
        return Shown(0, f"metrics.json: verdict {verdict['outcome']}, {len(measured)} rules with figures")
    return Shown(1, f"metrics.json: verdict pass, {len(measured)} of {len(verdict['findings'])} rules with figures")


def debuggable(evidence: Evidence) -> Shown:
    rows = (evidence.metrics.get("worst_rows") or {}).get("rows") or []
    explained = [row for row in rows if row.get("features") and row.get("contributions")]
    if not explained:
        return _lacking("metrics.json: no row with its contributions")
    return Shown(1, f"metrics.json: worst_rows: {len(explained)} rows with features and contributions")


def rollback(evidence: Evidence) -> Shown:
    ends = [(entry, (entry["from"], entry["to"])) for entry in evidence.ledger if entry["action"] == "rollback"]
    found = [entry for entry, versions in ends if evidence.version in versions]
    if not found:
        return _lacking("ledger: no rollback from or to this version")
    last = found[-1]
    return Shown(0.5, f"ledger: entry {last['number']}, rollback from {last['from']} to {last['to']}")


def _some(names: Sequence[str]) -> str:
    """At most three of them."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

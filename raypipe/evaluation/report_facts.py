"""What the report and the model card both tell: where a model comes from, and where its evaluation ends. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raypipe.data.digest import short
from raypipe.evaluation.gate import Verdict
from raypipe.evaluation.names import METRICS
from raypipe.evaluation.report_words import day, duration, number, share
from raypipe.project import Project
from raypipe.project.about_settings import About

_LIBRARIES = ("raypipe", "python", "xgboost", "polars", "scikit-learn")


@dataclass(frozen=True)
class Reported:
    """What the report and the model card are made of.

    predicts: the label in a sentence. result: evaluation.json. run: the run's manifest with its `digest`, or the part
    of it that `evaluate` was given. training_set: its manifest with its `digest`. evidence: what the probes of the data
    found before training.
    """

    model: str
    about: About
    predicts: str
    result: Mapping[str, Any]
    verdict: Verdict
    run: Mapping[str, Any]
    training_set: Mapping[str, Any]
    evidence: Mapping[str, Any] = field(default_factory=dict)


def predicts(project: Project) -> str:
    """What the project's models do, in a sentence without Markdown: MLflow's lists show it as it is."""
    label, views = project.definitions.label, project.definitions.views
    features, named = len(project.definitions.features()), ", ".join(view.name for view in views)
    return f"Predicts {label.name} ({label.task}) for rows of {label.spine.name}, from {features} features of {named}."


def lineage(reported: Reported) -> dict[str, str]:
    """Where the model comes from, what is known of it."""
    run, data = reported.run, reported.training_set
    identity, code = data.get("identity") or {}, run.get("code")
    told = {
        "run": short(run["digest"]),
        "training set": short(data["digest"]),
        "known until": identity.get("as_of") and str(identity["as_of"]),
        "sources": ", ".join(f"{n} {short(s['digest'])}" for n, s in sorted((data.get("sources") or {}).items())),
        "features": f"{len(data['features'])}" if data.get("features") else None,
        "code": None if code is None else _code(code),
        "trained at": run.get("started_at") and f"{day(run['started_at'])}, in {duration(run.get('wall_s'))}",
        "rounds": f"{run['best_round'] + 1} of {len(run['history'])}, by {run['metric']} on validation",
        "parameters": ", ".join(f"{n} {number(v)}" for n, v in sorted((run.get("params") or {}).items())),
        "libraries": ", ".join(f"{n} {v}" for n, v in (run.get("environment") or {}).items() if n in _LIBRARIES),
    }
    return {name: value for name, value in told.items() if value}


def _code(code: Mapping[str, Any]) -> str:
    if code.get("commit") is None:
        return "not in git"
    return f"commit {short(code['commit'])}" + (", with changes that no commit holds" if code.get("dirty") else "")


def limits(reported: Reported) -> list[str]:
    """What the model is not for and what was not tested: the owner's sentences first, then what the figures tell."""
    result = reported.result
    found = list(reported.about.limits)
    if not found:
        found.append("The owner states no limits (project.yaml: about.limits).")
    period = result.get("period")
    if period:
        found.append(f"Tested on {day(period[0])} to {day(period[1])}: what is rare or absent then is not tested.")
    else:
        found.append("The rows have no time: nothing is known of how the model ages.")
    found += _small_slices(result)
    if not result.get("intervals"):
        found.append("The figures have no intervals: small differences may be chance.")
    if period and not result.get("backtest"):
        found.append("No back-test was made: how long the model lasts is not known.")
    if not (reported.evidence or result).get("leakage"):
        found.append("The data was not probed for leakage.")
    if not result.get("fairness"):
        found.append("Fairness between groups was not measured (project.yaml: evaluation.fairness).")
    if not result.get("behaviour"):
        found.append("No expectations on the model's behaviour are declared.")
    return found


def _small_slices(result: Mapping[str, Any]) -> list[str]:
    metric, rows = METRICS[result["task"]][0], (result.get("model") or {}).get("rows")
    said = []
    for column, slices in (result.get("slices") or {}).items():
        small = [s for s in slices or [] if s.get(metric) is None and metric not in (s.get("intervals") or {})]
        if small:
            count = sum(s["rows"] for s in small)
            of = f" ({share(count / rows)} of the test rows)" if rows else ""
            said.append(f"{len(small)} of {len(slices)} values of {column} have too few rows to be measured{of}.")
    return said


def missing_most(reported: Reported, most: int = 10) -> list[tuple[str, float]]:
    """The features that are missing in the largest share of rows, of those that ever are."""
    shares = reported.evidence.get("null_share") or reported.result.get("null_share") or {}
    some = [(name, value) for name, value in shares.items() if value]
    return sorted(some, key=lambda item: (-item[1], item[0]))[:most]

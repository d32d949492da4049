"""What MLflow is told of a training run: names, parameters, metrics, tags and the note on its page. Pure.

MLflow takes letters, digits, `_`, `-`, `.`, blanks, `:` and `/` in names. A `/` groups metrics on its pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from raypipe.data.digest import short
from raypipe.data.split import TRAIN, VALIDATION
from raypipe.errors import RaypipeError
from raypipe.evaluation.report_facts import predicts
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project

NOTE = "mlflow.note.content"  # Markdown that MLflow shows as a description
COMMIT = "mlflow.source.git.commit"
TEST = "test/"  # what the names of an evaluation's metrics start with
ERROR = ("error", "error.what", "error.where", "error.got")
MAX_TAG = 5000  # characters that every MLflow store takes in a tag or a parameter
# Of the run's parameters: what raypipe sets the same in every run, or what stands under a name of its own.
_ELSEWHERE = {"disable_default_eval_metric", "seed_per_iteration", "nthread", "eval_metric"}
_CONSTRAINTS = {"monotone_constraints", "interaction_constraints"}
_TESTED = "| test |"

Period = tuple[datetime, datetime]


@dataclass(frozen=True)
class Point:
    """A metric's value; `at` is when it was measured."""

    name: str
    value: float
    at: datetime
    step: int = 0


def run_name(model: str, digest: str, began: datetime) -> str:
    return f"{model} {short(digest)} {began:%Y-%m-%d}"


def params(training: Mapping[str, Any], xgboost: Mapping[str, Any]) -> dict[str, str]:
    """What decides the trees: the settings that have names of raypipe's, and XGBoost's own parameters.

    training: the `training` section of project.yaml. xgboost: the parameters that its workers got.
    """
    named: dict[str, Any] = {
        "rounds": training["rounds"],
        "early_stopping_rounds": training["early_stopping_rounds"],
        "class_weight": training["class_weight"] or "none",
        "objective": training["objective"] or xgboost["objective"],
        "metric": training["metric"] or xgboost["eval_metric"],
    }
    named |= {name: value for name, value in xgboost.items() if name not in {*named, *_ELSEWHERE, *_CONSTRAINTS}}
    named |= {f"monotone.{feature}": f"{sign:+}" for feature, sign in training["monotone"].items()}
    named |= {f"interactions.{n}": ", ".join(group) for n, group in enumerate(training["interactions"], 1)}
    return {_name(name): str(value)[:MAX_TAG] for name, value in named.items()}


def layout_params(manifest: Mapping[str, Any]) -> dict[str, str]:
    """How the run was laid out, which changes no tree."""
    return {
        "workers": str(manifest["workers"]),
        "threads": str(manifest["threads"]),
        "matrix": manifest["matrix"].partition(" (")[0],
    }


def points(manifest: Mapping[str, Any]) -> list[Point]:
    """The metrics of a finished run: its curves by round, then its figures, without steps."""
    metric, history, seconds = manifest["metric"], manifest["history"], manifest["seconds"]
    began, best = datetime.fromisoformat(manifest["started_at"]), manifest["best_round"]
    ended = began + timedelta(seconds=manifest["wall_s"])

    def of_round(part: str, round_: int, value: float) -> Point:
        share = (seconds["read"] + seconds["rounds"] * round_ / len(history)) / seconds["wall"]
        return Point(_name(f"curve/{part}_{metric}"), value, began + share * (ended - began), round_)

    figures = {
        "best_round": best + 1,
        f"best_validation_{metric}": history[best],
        "wall_s": manifest["wall_s"],
        "read_s": seconds["read"],
        "cpu_s": seconds["cpu"],
        "peak_memory_mib": manifest["peak_bytes"] / 2**20,
        "rows_per_s": manifest["rows"] * (len(history) - manifest["resumed_at"]) / seconds["rounds"],
    }
    figures |= {"cost": manifest["cost"]} if manifest["cost"] is not None else {}
    return [
        *(of_round("validation", round_, value) for round_, value in enumerate(history, 1)),
        *(of_round("train", round_, value) for round_, value in manifest["curve"]),
        *(Point(_name(name), float(value), ended) for name, value in figures.items()),
    ]


def tags(project: Project, training_set: TrainingSet, digest: str, code: Mapping[str, Any]) -> dict[str, str]:
    """What a run is made of."""
    sources = training_set.manifest["sources"]
    state = {True: "yes", False: "no", None: "not in git"}[code["dirty"]]
    made = {
        "run_digest": digest,
        "training_set": training_set.digest,
        "definitions": project.definitions.digest(),
        "as_of": training_set.manifest["identity"]["as_of"],
        "task": project.definitions.label.task,
        "dirty": state,
        "changes": _changes(code) or None,
        "commit": code["commit"],
        COMMIT: code["commit"],
        "mlflow.source.name": "raypipe train",
        **{f"source.{name}": source["digest"] for name, source in sources.items()},
    }
    return {_name(name): value[:MAX_TAG] for name, value in made.items() if value is not None}


def run_tags(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What only a finished run can say."""
    libraries = {f"version.{name}": manifest["environment"][name] for name in ("python", "raypipe", "ray", "polars")}
    tuned = {"tuning": str(manifest["tuning"])} if manifest["tuning"] else {}
    return libraries | {"version.xgboost": manifest["xgboost"], "resumed_at": str(manifest["resumed_at"])} | tuned


def error_tags(error: BaseException) -> dict[str, str]:
    """What an error says, without where in the code it was raised."""
    if isinstance(error, RaypipeError):
        said = {"error": type(error).__name__, "error.what": error.what}
        said |= {"error.where": error.where, "error.got": error.got or ""}
    else:
        said = {"error": type(error).__name__, "error.what": str(error).partition("\n")[0]}
    return {name: value[:MAX_TAG] for name, value in said.items() if value}


def note(
    project: Project, training_set: TrainingSet, manifest: Mapping[str, Any], periods: Mapping[str, Period]
) -> str:
    """The description of a finished run, in Markdown."""
    m, best = manifest, manifest["best_round"]
    processes = f"{m['workers']} workers" if m["distributed"] else "1 process"
    matrix = m["matrix"].partition(" (")[0]
    resumed = f"; continued after round {m['resumed_at']}" if m["resumed_at"] else ""
    lines = {
        "validation": f"{m['metric']} **{m['history'][best]:.4g}** at round {best + 1} of {len(m['history'])}",
        "trained on": _part(training_set, TRAIN, periods),
        "validated on": _part(training_set, VALIDATION, periods),
        "sources": _sources(training_set),
        "took": f"{m['wall_s']:,.1f} s, {m['seconds']['cpu']:,.1f} s of CPU; "
        f"at most {m['peak_bytes'] / 2**20:,.0f} MiB; {processes} of {m['threads']} threads, matrix {matrix}{resumed}",
        "cost": f"{m['cost']:.4g}" if m["cost"] is not None else "not priced (training.price_per_core_hour)",
        "code": _code(m["code"]),
    }
    return _page(predicts(project) + _warning(m["code"]), lines)


def failure_note(project: Project, training_set: TrainingSet, error: Mapping[str, str], code: Mapping[str, Any]) -> str:
    """The description of a run that ended without a model."""
    lines = {name.removeprefix("error."): value for name, value in error.items()}
    return _page(
        f"**Failed.** {predicts(project)}{_warning(code)}",
        lines | {"sources": _sources(training_set), "code": _code(code)},
    )


def with_test(described: str, metrics: Mapping[str, Any], verdict: str) -> str:
    """A run's description with what its evaluation found, below the figures on validation."""
    measured = {name: value for name, value in metrics.items() if isinstance(value, float) and name != "positive_share"}
    figures = ", ".join(f"{name} {value:.4g}" for name, value in measured.items())
    lines = [line for line in described.split("\n") if not line.startswith(_TESTED)]
    after = [n for n, line in enumerate(lines, 1) if line.startswith("| validation |")]
    at = after[0] if after else len(lines)  # people may have written another description
    return "\n".join([*lines[:at], f"{_TESTED} gate **{verdict}**: {figures} |", *lines[at:]])


def version_note(described: str) -> str:
    """An evaluated run's description as its version's: the test figures stand first, where MLflow's lists show them."""
    tested = [line for line in described.split("\n") if line.startswith(_TESTED)]
    return "\n\n".join([line.removeprefix(_TESTED).strip("| ").replace("*", "") for line in tested] + [described])


def test_points(metrics: Mapping[str, Any], at: datetime) -> list[Point]:
    """An evaluation's metrics: those that are numbers."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return [Point(_name(TEST + name), float(value), at) for name, value in numbers.items()]


def _page(first: str, lines: Mapping[str, str]) -> str:
    rows = [f"| {name} | {_cell(value)} |" for name, value in lines.items()]
    return "\n".join([first, "", "| | |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _part(training_set: TrainingSet, part: str, periods: Mapping[str, Period]) -> str:
    period = " to ".join(f"{moment:%Y-%m-%d}" for moment in periods[part]) if part in periods else "without time"
    return f"{training_set.rows(part):,} rows, {period}"


def _sources(training_set: TrainingSet) -> str:
    named = training_set.manifest["sources"].items()
    sources = ", ".join(f"{name} `{short(source['digest'])}` ({source['rows']:,} rows)" for name, source in named)
    return f"{sources}; training set `{short(training_set.digest)}`"


def _code(code: Mapping[str, Any]) -> str:
    if code["commit"] is None:
        return "not in git"
    if code["dirty"]:
        return f"commit `{short(code['commit'])}` with changes that it does not hold: {_changes(code)}"
    return f"commit `{short(code['commit'])}`"


def _warning(code: Mapping[str, Any]) -> str:
    return " **No commit holds its code.**" if code["dirty"] is not False else ""


def _changes(code: Mapping[str, Any]) -> str:
    return ", ".join(line.strip() for line in code["changes"])


def _name(text: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", text.replace("@", "_at_"), flags=re.ASCII)

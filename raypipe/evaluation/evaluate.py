"""Evaluate a model on the whole of the test part, in one process, a file at a time.

`<storage>/evaluations/<digest>/`: `evaluation.json`, `report.html`, `model_card.md` and `scores.parquet` (`__row`,
prediction time, label, weight, base margin and group where the label declares them, score, slice columns).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import xgboost as xgb

import raypipe
from raypipe.data.digest import digest_of
from raypipe.data.publish import Output, publish
from raypipe.data.split import TEST, TRAIN
from raypipe.definitions.label import GROUP, LABEL, PREDICTION_TIME, WEIGHT
from raypipe.definitions.source import ROW
from raypipe.errors import NotEnoughDataError
from raypipe.evaluation import baselines
from raypipe.evaluation.calibration import calibration_of
from raypipe.evaluation.compare import comparisons
from raypipe.evaluation.curves import curves
from raypipe.evaluation.gate import Verdict, judge, parse
from raypipe.evaluation.intervals import intervals
from raypipe.evaluation.last_value import last_value
from raypipe.evaluation.metrics import Floats, Scored, by_slice, measurable, measure
from raypipe.evaluation.model_card import write_card
from raypipe.evaluation.names import BASELINES, LAST_VALUE
from raypipe.evaluation.report import write_report
from raypipe.evaluation.report_facts import Reported, predicts
from raypipe.evaluation.tested import MODEL, Tested
from raypipe.evaluation.threshold import threshold
from raypipe.features.score import score
from raypipe.features.training_set import TrainingSet
from raypipe.features.transforms import Transforms
from raypipe.project import Project

RESULT, SCORES, REPORT, CARD = "evaluation.json", "scores.parquet", "report.html", "model_card.md"
_OF_THE_RUN = ("digest", "rounds", "workers", "metric", "history", "curve", "best_round")


@dataclass(frozen=True)
class Evaluation:
    """A model's figures on the test part, and what the gate says of them."""

    output: Output
    result: dict[str, Any]
    verdict: Verdict

    @property
    def digest(self) -> str:
        return self.output.folder.name

    @property
    def report(self) -> Path:
        return self.output.path(REPORT)

    @property
    def card(self) -> Path:
        return self.output.path(CARD)

    @property
    def metrics(self) -> dict[str, Any]:
        model: dict[str, Any] = self.result["model"]
        return model


def evaluate(project: Project, training_set: TrainingSet, model: Path, run: dict[str, Any]) -> Evaluation:
    """Measure `model` and the baselines, judge by the project's rules, and write the report and the model card.

    Raises NotEnoughDataError if the test rows that count do not differ in their label.

    `run` says which run made the model: `digest`, `rounds`, `workers`, and how it learned: `metric`, `history`, `curve`
    and `best_round` of its manifest. What else it has of the manifest is told in the report.
    """
    settings = project.settings.evaluation
    named = {"raypipe": raypipe.__version__, "run": run["digest"], "evaluation": settings.model_dump(mode="json")}
    named["about"] = project.settings.about.model_dump(mode="json")  # the card says it
    folder = project.storage / "evaluations" / digest_of(named)
    output = publish(folder, lambda attempt: _evaluate(project, training_set, model, run, attempt))
    result = orjson.loads(output.path(RESULT).read_bytes())
    return Evaluation(output, result, verdict_of(project, result))


def verdict_of(project: Project, result: dict[str, Any]) -> Verdict:
    """The project's gate over the figures of `result`."""
    figures, task = dict(result["model"]), project.definitions.label.task
    for baseline, measured in result["baselines"].items():
        figures |= {f"{baseline}.{metric}": value for metric, value in measured.items()}
    return judge([parse(rule, task) for rule in project.settings.evaluation.gate], figures)


def _evaluate(
    project: Project, training_set: TrainingSet, model: Path, run: dict[str, Any], attempt: Path
) -> dict[str, Any]:
    tested = _tested(project, training_set, xgb.Booster(model_file=str(model)))
    if not measurable(tested.task, tested.model):
        raise NotEnoughDataError(
            "the test rows that have a weight above 0 have one label only", where="features.py: Label, weight"
        )
    result: dict[str, Any] = {
        "task": tested.task,
        "period": _period(tested.rows),
        "run": {name: run[name] for name in _OF_THE_RUN},
        "training_set": {k: training_set.manifest[k] for k in ("parts", "left_out", "split")}
        | {"digest": training_set.digest},
    }
    result |= {name: analyse(tested) for name, analyse in _ANALYSES.items()}
    tested.rows.with_columns(pl.Series("score", tested.model.score)).write_parquet(attempt / SCORES)
    (attempt / RESULT).write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    data = training_set.manifest | {"digest": training_set.digest}
    settings, verdict = project.settings, verdict_of(project, result)
    reported = Reported(settings.name, settings.about, predicts(project), result, verdict, run, data)
    write_report(attempt / REPORT, reported)
    write_card(attempt / CARD, reported)
    return {"rows": tested.rows.height}


def _tested(project: Project, training_set: TrainingSet, booster: xgb.Booster) -> Tested:
    """The test rows, and what the model and each baseline say of them. Reads a file at a time."""
    label, train, transforms = project.definitions.label, training_set.files(TRAIN), training_set.transforms()
    simple, linear = BASELINES[label.task][:2]
    classes = None if transforms.classes is None else len(transforms.classes)
    fitted = baselines.linear_model(label.task, train, transforms, project.settings.training.seed)
    kept = [ROW, PREDICTION_TIME, LABEL, *label.row_columns(), *label.request_columns()]
    kept += project.settings.evaluation.slices
    parts: list[pl.DataFrame] = []
    scores: dict[str, list[Floats]] = {MODEL: [], linear: []}
    for file in training_set.files(TEST):
        frame = pl.read_parquet(file)
        parts.append(frame.select(kept))
        scores[MODEL].append(score(booster, transforms, frame))
        scores[linear].append(baselines.predict(fitted, transforms.matrix(frame), classes))
    rows = pl.concat(parts)
    by_name = {name: np.concatenate(found) for name, found in scores.items()}
    by_name[simple] = baselines.constant(label.task, train, transforms, rows.height)
    last = last_value(project.definitions, training_set, transforms)
    by_name |= {} if last is None else {LAST_VALUE: last}
    names = [name for name in (MODEL, *BASELINES[label.task]) if name in by_name]
    said = {name: _numbers(rows, by_name[name], transforms) for name in names}
    return Tested(project, training_set, transforms, booster, rows, said)


def _numbers(rows: pl.DataFrame, scores: Floats, transforms: Transforms) -> Scored:
    """The scores of some rows with what they are measured by."""
    return Scored(
        transforms.labels(rows).astype(np.float64),
        scores,
        rows[WEIGHT].to_numpy() if WEIGHT in rows.columns else None,
        np.unique(rows[GROUP].to_numpy(), return_inverse=True)[1] if GROUP in rows.columns else None,
    )


def _period(scored: pl.DataFrame) -> tuple[str, str] | None:
    """The first and last prediction time (ISO 8601); None where there is no time."""
    time = pl.col(PREDICTION_TIME)
    first, last = scored.select(f.dt.to_string("iso").alias(n) for n, f in (("0", time.min()), ("1", time.max()))).row(
        0
    )
    return (first, last) if first else None


def importance(booster: xgb.Booster) -> dict[str, float]:
    """Share of the total gain of each feature, largest first."""
    gain: dict[str, float] = booster.get_score(importance_type="total_gain")  # type: ignore[assignment]
    total = sum(gain.values()) or 1.0
    return {name: value / total for name, value in sorted(gain.items(), key=lambda item: -item[1])}


def _measured(tested: Tested) -> dict[str, float]:
    return measure(tested.task, tested.model, tested.settings.calibration_bins)


def _confidence(tested: Tested) -> float:
    return tested.settings.confidence


def _blocks(tested: Tested) -> dict[str, Any]:
    return tested.blocks.to_json()


def _baselines(tested: Tested) -> dict[str, dict[str, float]]:
    bins = tested.settings.calibration_bins
    names = [name for name in BASELINES[tested.task] if name in tested.said]
    return {name: measure(tested.task, tested.said[name], bins) for name in names}


def _slices(tested: Tested) -> dict[str, list[dict[str, Any]]]:
    bins, least = tested.settings.calibration_bins, tested.settings.slice_min_rows
    return {
        column: by_slice(tested.task, tested.model, tested.rows[column], bins, least)
        for column in tested.settings.slices
    }


def _importance(tested: Tested) -> dict[str, float]:
    return importance(tested.booster)


# Each key of evaluation.json, with what makes it.
_ANALYSES: dict[str, Callable[[Tested], Any]] = {
    MODEL: _measured,
    "baselines": _baselines,
    "confidence": _confidence,
    "blocks": _blocks,
    "intervals": intervals,
    "comparisons": comparisons,
    "slices": _slices,
    "calibration": calibration_of,
    "threshold": threshold,
    "curves": curves,
    "importance": _importance,
}

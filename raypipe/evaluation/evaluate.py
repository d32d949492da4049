"""Evaluate a model on the whole of the test part, in one process, a file at a time.

`<storage>/evaluations/<digest>/`: `evaluation.json`, `report.html` and `scores.parquet` (`__row`, prediction time,
label, score, slice columns).
"""

from __future__ import annotations

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
from raypipe.definitions.label import LABEL, PREDICTION_TIME
from raypipe.definitions.source import ROW
from raypipe.evaluation import baselines
from raypipe.evaluation.gate import Verdict, judge, parse
from raypipe.evaluation.metrics import by_slice, calibration, curve, measure
from raypipe.evaluation.names import BASELINES
from raypipe.evaluation.report import write_report
from raypipe.features.training_set import TrainingSet
from raypipe.features.transforms import Transforms
from raypipe.project import Project

RESULT, SCORES, REPORT = "evaluation.json", "scores.parquet", "report.html"


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
    def metrics(self) -> dict[str, Any]:
        model: dict[str, Any] = self.result["model"]
        return model


def evaluate(project: Project, training_set: TrainingSet, model: Path, run: dict[str, Any]) -> Evaluation:
    """Measure `model` and the baselines, judge by the project's rules, and write the report.

    `run` says which run made the model: `digest`, `rounds`, `workers`, and how it learned: `metric`, `history`, `curve`
    and `best_round` of its manifest.
    """
    settings = project.settings.evaluation
    named = {"raypipe": raypipe.__version__, "run": run["digest"], "evaluation": settings.model_dump(mode="json")}
    folder = project.storage / "evaluations" / digest_of(named)
    output = publish(folder, lambda attempt: _evaluate(project, training_set, model, run, attempt))
    result = orjson.loads(output.path(RESULT).read_bytes())
    return Evaluation(output, result, verdict_of(project, result))


def verdict_of(project: Project, result: dict[str, Any]) -> Verdict:
    """The project's gate over the figures of `result`."""
    figures = dict(result["model"])
    for baseline in BASELINES:
        figures |= {f"{baseline}.{metric}": value for metric, value in result["baselines"][baseline].items()}
    return judge([parse(rule) for rule in project.settings.evaluation.gate], figures)


def score(booster: xgb.Booster, transforms: Transforms, frame: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Probabilities for rows of feature values, shape (rows,)."""
    return np.asarray(booster.inplace_predict(transforms.matrix(frame)), dtype=np.float32)


def _evaluate(
    project: Project, training_set: TrainingSet, model: Path, run: dict[str, Any], attempt: Path
) -> dict[str, Any]:
    settings, transforms = project.settings.evaluation, training_set.transforms()
    booster = xgb.Booster(model_file=str(model))
    train = training_set.files(TRAIN)
    simpler = baselines.logistic_regression(train, transforms, project.settings.training.seed)
    parts = []
    for file in training_set.files(TEST):
        frame = pl.read_parquet(file)
        parts.append(
            frame.select(ROW, PREDICTION_TIME, pl.col(LABEL).alias("label"), *settings.slices).with_columns(
                pl.Series("score", score(booster, transforms, frame)),
                pl.Series("simpler", baselines.predict(simpler, transforms.matrix(frame))),
            )
        )
    scored = pl.concat(parts)
    label, scores = scored["label"].to_numpy().astype(np.float64), scored["score"].to_numpy()
    bins = settings.calibration_bins
    rate = baselines.base_rate(train)
    result = {
        "model": measure(label, scores, bins),
        "baselines": {
            "base_rate": measure(label, np.full(len(label), rate), bins),
            "logistic_regression": measure(label, scored["simpler"].to_numpy(), bins),
        },
        "slices": {column: by_slice(scored, column, bins, settings.slice_min_rows) for column in settings.slices},
        "period": scored.select(
            first=pl.col(PREDICTION_TIME).min().dt.to_string("iso"),
            last=pl.col(PREDICTION_TIME).max().dt.to_string("iso"),
        ).row(0),
        "calibration": curve(calibration(label, scores, bins)),
        "importance": importance(booster),
        "run": run,
        "training_set": {k: training_set.manifest[k] for k in ("parts", "left_out")} | {"digest": training_set.digest},
    }
    scored.drop("simpler").write_parquet(attempt / SCORES)
    (attempt / RESULT).write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    write_report(attempt / REPORT, project.settings.name, result, verdict_of(project, result))
    return {"rows": scored.height}


def importance(booster: xgb.Booster) -> dict[str, float]:
    """Share of the total gain of each feature, largest first."""
    gain: dict[str, float] = booster.get_score(importance_type="total_gain")  # type: ignore[assignment]
    total = sum(gain.values()) or 1.0
    return {name: value / total for name, value in sorted(gain.items(), key=lambda item: -item[1])}

"""Evaluate a model on the whole of the test part, in one process, a file at a time.

`<storage>/evaluations/<digest>/`: `evaluation.json`, `report.html`, `model_card.md`, `scores.parquet` (`__row`,
prediction time, label, weight, base margin and group where the label declares them, score, slice columns) and
`worst_rows.parquet` (raypipe.evaluation.worst_rows).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import xgboost as xgb

import raypipe
from raypipe.data.digest import digest_of
from raypipe.data.publish import Identified, publish
from raypipe.definitions.behaviour import document
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.errors import NotEnoughDataError
from raypipe.evaluation import worst_rows
from raypipe.evaluation.backtest import backtest
from raypipe.evaluation.behaviour import behaviour
from raypipe.evaluation.calibration import calibration_of
from raypipe.evaluation.champion import Champion
from raypipe.evaluation.compare import comparisons
from raypipe.evaluation.curves import curves
from raypipe.evaluation.data_evidence import DataEvidence
from raypipe.evaluation.explain import mean_contributions
from raypipe.evaluation.fairness import fairness
from raypipe.evaluation.gate import Verdict, judge
from raypipe.evaluation.gate_figures import evidence_of
from raypipe.evaluation.intervals import intervals
from raypipe.evaluation.latency import latency
from raypipe.evaluation.metrics import measurable, measure
from raypipe.evaluation.model_card import write_card
from raypipe.evaluation.names import BASELINES
from raypipe.evaluation.report import write_report
from raypipe.evaluation.report_facts import Reported, predicts
from raypipe.evaluation.rules import rules_of
from raypipe.evaluation.scoring import score_test_part
from raypipe.evaluation.slices import slices
from raypipe.evaluation.tested import MODEL, Tested
from raypipe.evaluation.threshold import threshold
from raypipe.evaluation.usefulness import usefulness
from raypipe.evaluation.worst_slices import worst_slices
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project

RESULT, SCORES, REPORT, CARD = "evaluation.json", "scores.parquet", "report.html", "model_card.md"
_OF_THE_RUN = ("digest", "rounds", "workers", "metric", "history", "curve", "best_round")


@dataclass(frozen=True)
class Evaluation(Identified):
    """A model's figures on the test part, and what the gate says of them."""

    result: dict[str, Any]
    verdict: Verdict

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


def evaluate(  # noqa: PLR0917 (all that goes into it)
    project: Project,
    training_set: TrainingSet,
    model: Path,
    run: dict[str, Any],
    data: DataEvidence | None = None,
    champion: Champion | None = None,
) -> Evaluation:
    """Measure `model`, the baselines and the champion, judge by the project's rules, and write the report and
    the model card.

    Raises NotEnoughDataError if the test rows that count do not differ in their label.

    data: what was found before training; None: nobody looked. champion: what serves, unless it is the model itself.
    `run` says which run made the model: `digest`, `rounds`, `workers`, and how it learned: `metric`, `history`, `curve`
    and `best_round` of its manifest. What else it has of the manifest is told in the report.
    """
    settings = project.settings.evaluation
    named = {
        "raypipe": raypipe.__version__,
        "run": run["digest"],
        "evaluation": settings.model_dump(mode="json"),
        "behaviours": [document(test) for test in project.definitions.behaviours],
        "about": project.settings.about.model_dump(mode="json"),  # the card says it
        "data": data.digest if data else None,
        "champion": champion.digest if champion else None,
    }
    folder = project.storage / "evaluations" / digest_of(named)
    output = publish(folder, lambda attempt: _evaluate(project, training_set, model, run, data, champion, attempt))
    result = orjson.loads(output.path(RESULT).read_bytes())
    return Evaluation(output, result, verdict_of(project, result))


def verdict_of(project: Project, result: dict[str, Any]) -> Verdict:
    """The project's gate over the figures of `result`."""
    return judge(rules_of(project.definitions, project.settings.evaluation), evidence_of(result))


def _evaluate(  # noqa: PLR0917 (all that goes into it)
    project: Project,
    training_set: TrainingSet,
    model: Path,
    run: dict[str, Any],
    data: DataEvidence | None,
    champion: Champion | None,
    attempt: Path,
) -> dict[str, Any]:
    definitions, transforms = project.definitions.document(), training_set.transforms()
    why_not = champion.why_not(definitions, transforms) if champion else None
    booster = xgb.Booster(model_file=str(model))
    tested = score_test_part(project, training_set, booster, None if why_not else champion)
    if not measurable(tested.task, tested.model):
        raise NotEnoughDataError(
            "the test rows that have a weight above 0 have one label only", where="features.py: Label, weight"
        )
    result: dict[str, Any] = {
        "task": tested.task,
        "period": _period(tested.rows),
        "run": {name: run[name] for name in _OF_THE_RUN},
        "champion": {"version": champion.version, "digest": champion.digest, "why_not": why_not} if champion else None,
        "data": data.document if data else None,
        "training_set": {k: training_set.manifest[k] for k in ("parts", "left_out", "split")}
        | {"digest": training_set.digest},
    }
    result |= {name: analyse(tested) for name, analyse in _ANALYSES.items()}
    worst = worst_rows.worst_rows(tested)
    worst.write_parquet(attempt / worst_rows.FILE)
    result["worst_rows"] = worst_rows.to_json(worst)
    tested.rows.with_columns(pl.Series("score", tested.model.score)).write_parquet(attempt / SCORES)
    (attempt / RESULT).write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    settings, verdict = project.settings, verdict_of(project, result)
    manifest = training_set.manifest | {"digest": training_set.digest}
    reported = Reported(
        settings.name, settings.about, predicts(project), result, verdict, run, manifest, result["data"] or {}
    )
    write_report(attempt / REPORT, reported)
    write_card(attempt / CARD, reported)
    return {"rows": tested.rows.height}


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
    "slices": slices,
    "worst_slices": worst_slices,
    "calibration": calibration_of,
    "threshold": threshold,
    "fairness": fairness,
    "curves": curves,
    "importance": _importance,
    "contributions": mean_contributions,
    "usefulness": usefulness,
    "behaviour": behaviour,
    "backtest": backtest,
    "latency": latency,
}

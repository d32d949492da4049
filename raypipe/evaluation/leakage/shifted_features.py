"""Probe: the score collapses without the last horizon's knowledge.

The features that look back are built again, by the engine, as they were a horizon before the prediction time (the
median time from a prediction to its known outcome), and the same small model is trained on them. Old knowledge is
worth less, so every honest score falls. How far it may: what predicts over one horizon with skill s (1 perfect, 0
chance) predicts over two with s^2 or so, if what it sees fades evenly. A near-perfect score that keeps less than two
thirds of that knew the outcome, which a horizon earlier did not exist: a source is known later than it declares.

Where an outcome comes to light long after it happened (a fraud, by a complaint) the horizon is that long, too, and an
honest near-perfect model may collapse. The finding then says what to look at; `single_feature_auc` is the bound to
raise.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl

from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.label import LABEL, LABEL_KNOWN_TIME, PREDICTION_TIME
from raypipe.definitions.source import EVENT_TIME, ROW
from raypipe.evaluation.leakage.concordance import ERRORS, Concordance, small_model
from raypipe.evaluation.leakage.finding import Found, Probed
from raypipe.evaluation.leakage.sample import Sample
from raypipe.evaluation.leakage.single_feature import by_feature
from raypipe.features.job import put_together
from raypipe.features.partitions import moment, oldest_event, us
from raypipe.features.point_in_time import event_columns, view_features

NAME = "shifted_features"
KEPT = 2 / 3  # of the skill that fading evenly leaves, the least that an honest score keeps
ROWS = 10_000  # of training that are built again; of validation half as many


def probe(sample: Sample) -> Probed:
    if not sample.looking_back:
        return Probed(because="no feature looks back in time")
    most = sample.project.settings.features.batch_rows
    large = [v.source.name for v in sample.looking_back if sample.sources[v.source.name].rows > most]
    if large:
        return Probed(because=f"source '{large[0]}' has more rows than features.batch_rows: one process cannot hold it")
    horizon = (sample.train[LABEL_KNOWN_TIME] - sample.train[PREDICTION_TIME]).median()
    if not isinstance(horizon, timedelta) or horizon <= timedelta(0):
        return Probed(because="outcomes are known when they are predicted: there is no horizon to shift by")
    now = replace(sample, train=_thin(sample.train, ROWS), validation=_thin(sample.validation, ROWS // 2))
    score_now = _score(now)
    if score_now is None:
        return Probed(because="the labels of the training or the validation rows do not differ")
    before = replace(now, train=earlier(now, now.train, horizon), validation=earlier(now, now.validation, horizon))
    score_before = _score(before)
    assert score_before is not None, "the labels are the same"
    figures = {"rows": now.train.height + now.validation.height, "horizon_s": horizon.total_seconds()}
    figures |= {"now": score_now.value, "before": score_before.value, "expected": floor(score_now.skill)}
    if not collapsed(score_now, score_before, sample.settings.single_feature_auc):
        return Probed(figures)
    return Probed(figures, [_finding(now, before, score_now, score_before, horizon)])


def floor(skill: float) -> float:
    """The concordance that should at least be left of one with that skill."""
    return (1 + KEPT * skill**2) / 2


def collapsed(now: Concordance, before: Concordance, near_perfect: float) -> bool:
    """Whether a near-perfect score is left with too little of what fading evenly would leave it."""
    error = float(np.hypot(before.error, 2 * KEPT * now.skill * now.error))  # of before less floor(now.skill)
    return now.low > near_perfect and before.value + ERRORS * error < floor(now.skill)


def _thin(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    return rows[:: max(-(-rows.height // most), 1)]


def _score(sample: Sample) -> Concordance | None:
    train, validation = (sample.x_train, sample.y_train), (sample.x_validation, sample.y_validation)
    return small_model(sample, train, validation) if sample.measurable else None


def _finding(
    now: Sample, before: Sample, score_now: Concordance, score_before: Concordance, horizon: timedelta
) -> Found:
    """Names the feature that lost most, and its view's source."""
    left = by_feature(before)
    lost = {name: c.value - left[name].value for name, c in by_feature(now).items()}
    worst = max(lost, key=lambda name: lost[name])
    views = now.project.definitions.features_by_view()
    source = next((v.source.name for v in now.looking_back if worst in views[v.name]), None)
    says = (
        f"a small model has {score_now.value:.3f}, and {score_before.value:.3f} with what was known {horizon} earlier; "
        f"'{worst}' lost most" + (f": is source '{source}' known as early as it declares?" if source else "")
    )
    return Found(NAME, worst, score_before.value, floor(score_now.skill), says)


def earlier(sample: Sample, frame: pl.DataFrame, by: timedelta) -> pl.DataFrame:
    """Rows of the training set with the features that look back as they were `by` before; the others as they are."""
    project, label = sample.project, sample.label
    beside = [*label.row_columns(), *label.request_columns()]
    rows = frame.select(ROW, *label.request, PREDICTION_TIME, LABEL_KNOWN_TIME, LABEL, *beside)
    asked = rows.with_columns(pl.col(PREDICTION_TIME) - by)
    views = [view for view in project.definitions.views if isinstance(view, FeatureView | LatestView)]
    computed = {
        v.name: view_features(v, _events(sample, v, asked), asked, threads=pl.thread_pool_size()) for v in views
    }
    return put_together(project, rows, computed)


def _events(sample: Sample, view: FeatureView | LatestView, asked: pl.DataFrame) -> pl.DataFrame:
    """What the view's source holds of the time that the rows look at."""
    rows = sample.sources[view.source.name].scan(as_of=sample.as_of)
    if not view.source.static:
        times = asked[PREDICTION_TIME]
        rows = rows.filter(pl.col(EVENT_TIME) <= pl.lit(times.max()))
        oldest = oldest_event(view, us(times.min()))  # type: ignore[arg-type]
        rows = rows if oldest is None else rows.filter(pl.col(EVENT_TIME) >= pl.lit(moment(oldest)))
    return rows.select(event_columns(view)).drop_nulls(view.entity).collect()

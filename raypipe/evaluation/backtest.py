"""How a model ages: trained at rolling origins on what was known then, scored on all rows that came after.

Quality changes with the time that is predicted for, too: a stormy week is harder than a calm one. How hard each is, a
yardstick says: models of the same parameters that learned from the other weeks of the whole period, later ones
included, and that are told the time, so that they know each week's relation. What age costs is how much of its lead
over the yardstick a model has lost since it was new. The staleness budget is the age up to which that is shown to be
less than the tolerance (non-inferiority).

Runs in one process, on a sample of the training set's rows; the project's own parameters, and the run's rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xgboost as xgb

from raypipe.data.split import PARTS, embargo_us
from raypipe.definitions.durations import microseconds
from raypipe.definitions.label import GROUP, LABEL, LABEL_KNOWN_TIME, PREDICTION_TIME, Task, class_of
from raypipe.evaluation.influence import Linear, counting, linear
from raypipe.evaluation.intervals import plain
from raypipe.evaluation.leakage.sample import evenly, scan
from raypipe.evaluation.metrics import Scored, measurable
from raypipe.evaluation.names import LOWER_IS_BETTER, METRICS
from raypipe.evaluation.tested import Tested
from raypipe.features.score import score
from raypipe.features.transforms import Transforms
from raypipe.features.transforms_fit import fit
from raypipe.project.probe_settings import Backtest
from raypipe.project.split_settings import TimeSplit
from raypipe.training.boosting import Recipe, grow
from raypipe.training.matrix import Batches, matrix_of
from raypipe.training.objective import class_weights
from raypipe.training.train import job_of

SCORED = 10  # rows that are scored, as a multiple of those that are trained on
CLOCK = "__days"  # the prediction time as a feature of the yardstick, days since 1970
BLOCKS = 8  # of an age's rows, by time: what an interval's spread is taken over
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Model:
    """A trained model with the transforms of its own rows."""

    booster: xgb.Booster
    transforms: Transforms
    rows: int


@dataclass(frozen=True)
class Aged:
    """A model's metric at one age, and what of its lead over the yardstick it has lost since age 0."""

    age: int  # in units of the setting
    rows: int
    quality: Linear
    lead: Linear

    def lost_since(self, new: Aged, *, rising: bool) -> Linear:
        """As a share of the new model's metric."""
        sign, scale = (1 if rising else -1), abs(new.quality.value) or 1.0
        error = float(np.hypot(new.lead.error, self.lead.error)) if self is not new else 0.0
        lost = sign * (new.lead.value - self.lead.value) / scale
        return Linear(lost, np.array([error / scale]), min(new.lead.degrees, self.lead.degrees))


def backtest(tested: Tested) -> dict[str, Any] | None:
    """The result as JSON-able data; None where project.yaml asks for none."""
    settings, split = tested.settings.backtest, tested.project.settings.split
    if settings is None:
        return None
    if not isinstance(split, TimeSplit):
        return _told(tested, settings, [], "there is no time")
    days = pl.col(PREDICTION_TIME).dt.epoch("us") / (_DAY // timedelta(microseconds=1))
    rows = _rows(tested, settings).sort(PREDICTION_TIME, maintain_order=True).with_columns(days.alias(CLOCK))
    trainer = Trainer(tested, settings.rows)
    width = timedelta(microseconds=microseconds(settings.age, where="project.yaml: evaluation.backtest.age"))
    yardstick = Yardstick.of(trainer, rows, width)
    embargo, found = timedelta(microseconds=embargo_us(split)), []
    for origin in origins(rows[PREDICTION_TIME], settings.origins):
        known = (pl.col(PREDICTION_TIME) < origin - embargo) & (pl.col(LABEL_KNOWN_TIME) <= origin)
        model = trainer.of(rows.filter(known))
        later = rows.filter(pl.col(PREDICTION_TIME) >= origin)
        ages = list(_ages(tested.task, model, yardstick, later, origin)) if model and yardstick else []
        found += [(origin, model.rows, ages)] if model and ages and ages[0].age == 0 else []
    because = "" if found else "at no origin do the labels before it and of the first age after it differ"
    return _told(tested, settings, found, because)


def origins(times: pl.Series, count: int) -> list[datetime]:
    """Moments evenly spaced over the second half of the time that `times` span; the last leaves as much after it as
    lies between two."""
    first, last = times.min(), times.max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return [first + (last - first) * (0.5 + at / (2 * count)) for at in range(count)]


def _rows(tested: Tested, settings: Backtest) -> pl.DataFrame:
    """A sample of all parts: every n-th row that counts, of a ranking every n-th group."""
    training_set, most = tested.training_set, SCORED * settings.rows
    rows = scan([file for part in PARTS for file in training_set.files(part)])
    if tested.task != "ranking":
        return evenly(rows, most)
    every = -(-sum(training_set.rows(part) for part in PARTS) // most)
    return rows.filter(pl.col(GROUP).hash(seed=0) % every == 0).collect()


# ---- models ------------------------------------------------------------------------------------


class Trainer:
    """Trains as the run did, in this process, on at most so many rows."""

    def __init__(self, tested: Tested, most: int) -> None:
        self.project, self.task, self.most = tested.project, tested.task, most
        threads = tested.project.settings.training.threads or 0
        self.recipe: Recipe = job_of(tested.project, tested.training_set, threads, Path()).recipe
        self.threads, self.rounds = threads, tested.booster.num_boosted_rounds()

    def of(self, rows: pl.DataFrame, *, clock: bool = False) -> Model | None:
        """None if the labels of `rows` do not differ. `clock`: the time is a feature, and no constraint keeps it from
        the others."""
        rows = rows if self.task == "ranking" else rows.gather_every(max(-(-rows.height // self.most), 1))
        if rows[LABEL].n_unique() < 2:
            return None
        settings, features = self.project.settings, self.project.definitions.features()
        features |= {CLOCK: pl.Float64()} if clock else {}
        transforms = fit(features, rows.lazy(), settings.transforms, self.task)
        if self.task == "ranking":  # XGBoost takes rankings in order of their groups
            rows = rows.sort(GROUP, maintain_order=True).with_columns(pl.col(GROUP).rle_id())
        balanced = settings.training.class_weight is not None
        weights = class_weights(np.bincount(transforms.labels(rows).astype(np.intp)).tolist()) if balanced else None
        batches = Batches(lambda: iter([rows]), transforms, training=True, class_weights=weights)
        params = {k: v for k, v in self.recipe.params.items() if not (clock and k.endswith("_constraints"))}
        params |= {"num_class": len(transforms.classes)} if transforms.classes else {}
        matrix = matrix_of(batches, threads=self.threads, max_bin=int(params.get("max_bin", 256)))
        booster = xgb.Booster(params, [matrix])
        for round_ in range(self.rounds):
            grow(self.recipe, booster, matrix, round_)
        return Model(booster, transforms, rows.height)


@dataclass(frozen=True)
class Yardstick:
    """Two models, one of the even and one of the odd units of time; each row is scored by the one that has not learned
    from its unit."""

    even: Model
    odd: Model
    first: datetime
    width: timedelta

    @classmethod
    def of(cls, trainer: Trainer, rows: pl.DataFrame, width: timedelta) -> Yardstick | None:
        """None if the labels of either do not differ."""
        first = rows[PREDICTION_TIME][0]
        odd = _unit(first, width) % 2 == 1
        even_model, odd_model = (trainer.of(rows.filter(which), clock=True) for which in (~odd, odd))
        return cls(even_model, odd_model, first, width) if even_model and odd_model else None

    def of_row(self, rows: pl.DataFrame) -> Iterator[tuple[Model, pl.DataFrame]]:
        """The rows by the model that scores them."""
        odd = _unit(self.first, self.width) % 2 == 1
        yield self.even, rows.filter(odd)
        yield self.odd, rows.filter(~odd)


def _unit(since: datetime, width: timedelta) -> pl.Expr:
    """How many whole widths a row's prediction time is after `since`."""
    return (pl.col(PREDICTION_TIME) - since).dt.total_microseconds() // (width // timedelta(microseconds=1))


# ---- quality by age ----------------------------------------------------------------------------


def _ages(task: Task, model: Model, yardstick: Yardstick, rows: pl.DataFrame, origin: datetime) -> Iterator[Aged]:
    """Each whole age after the origin of which a metric can be had; `rows` are those after it, in order of time."""
    width, last = yardstick.width, rows[PREDICTION_TIME][-1]
    for age in range((last - origin) // width):
        begin = origin + age * width
        these = rows.filter(pl.col(PREDICTION_TIME).is_between(begin, begin + width, closed="left"))
        by_model = list(yardstick.of_row(these))
        pieces = [_known(piece, model, other) for other, piece in by_model]
        measured = _measured(task, [(model, piece) for piece in pieces], begin, width)
        bar = _measured(
            task, [(other, piece) for (other, _), piece in zip(by_model, pieces, strict=True)], begin, width
        )
        if measured is not None and bar is not None:
            yield Aged(age, sum(piece.height for piece in pieces), measured, measured.minus(bar))


def _known(rows: pl.DataFrame, *models: Model) -> pl.DataFrame:
    """The rows of classes that all of the models know."""
    for model in models:
        if model.transforms.classes is not None:
            rows = rows.filter(class_of(rows.schema[LABEL]).is_in(list(model.transforms.classes)))
    return rows


def _measured(
    task: Task, pieces: Sequence[tuple[Model, pl.DataFrame]], begin: datetime, width: timedelta
) -> Linear | None:
    """The task's first metric of pieces of an age's rows, each scored by a model; None where it is not defined."""
    kept = [(model, rows) for model, rows in pieces if rows.height]
    if not kept:
        return None
    rows = pl.concat([rows for _, rows in kept])
    labels = np.concatenate([model.transforms.labels(rows) for model, rows in kept])
    scores = np.concatenate([score(model.booster, model.transforms, rows) for model, rows in kept])
    found = Scored.of(rows, labels, scores)
    if not measurable(task, found):
        return None
    blocks = rows.select(_unit(begin, width / BLOCKS)).to_series().to_numpy().astype(np.int64)
    metric = linear(task, *counting(found, blocks))[METRICS[task][0]]
    return metric if metric.degrees > 0 else None


# ---- what is told ------------------------------------------------------------------------------

Origin = tuple[datetime, int, list[Aged]]


def _told(tested: Tested, settings: Backtest, found: Sequence[Origin], because: str) -> dict[str, Any]:
    metric, confidence = METRICS[tested.task][0], tested.settings.confidence
    width = timedelta(microseconds=microseconds(settings.age, where="project.yaml: evaluation.backtest.age"))

    def entry(age: int, rows: int, quality: Linear) -> dict[str, Any]:
        return {"age_days": age * width / _DAY, "rows": rows, "metric": plain(quality, confidence, rows).to_json()}

    by_age = []
    for age in sorted({one.age for _, _, ages in found for one in ages}):
        pairs = [(ages[0], one) for _, _, ages in found for one in ages if one.age == age]
        rows = sum(one.rows for _, one in pairs)
        lost = together([one.lost_since(new, rising=metric not in LOWER_IS_BETTER) for new, one in pairs])
        worse = plain(lost, confidence, rows).to_json()
        by_age.append(entry(age, rows, together([one.quality for _, one in pairs])) | {"worse": worse})
    days, why = staleness(by_age, settings.tolerance)
    return {
        "metric": metric,
        "tolerance": settings.tolerance,
        "origins": [
            {"origin": at.isoformat(), "rows": rows, "ages": [entry(a.age, a.rows, a.quality) for a in ages]}
            for at, rows, ages in found
        ],
        "by_age": by_age,
        "staleness_days": days,
        "because": because or why,
    }


def together(found: Sequence[Linear]) -> Linear:
    """The mean over origins: at one age each is measured on other rows than the next, unless ages are longer than the
    time between two. Degrees of freedom by Satterthwaite: An Approximate Distribution of Estimates of Variance
    Components, Biometrics 1946."""
    variances = np.array([one.error**2 for one in found])
    spread = sum(v**2 / one.degrees for v, one in zip(variances, found, strict=True))
    degrees = float(variances.sum() ** 2 / spread) if spread > 0 else min(one.degrees for one in found)
    error = float(np.sqrt(variances.sum())) / len(found)
    return Linear(float(np.mean([one.value for one in found])), np.array([error]), degrees)


def staleness(by_age: Sequence[dict[str, Any]], tolerance: float) -> tuple[float | None, str]:
    """The age in days up to which no more than `tolerance` is lost, with confidence, and why; None: it is never
    exceeded."""
    for one in by_age[1:]:
        value, low, high = one["worse"]
        if high > tolerance:
            verb = "has lost" if low > tolerance else "may have lost"
            said = f"{value:.1%} [{low:.1%}, {high:.1%}] of its quality, more than {tolerance:.1%}"
            return one["age_days"], f"a model of {one['age_days']:g} days {verb} {said}"
    oldest = f"{by_age[-1]['age_days']:g}" if by_age else "0"
    return None, f"up to {oldest} days, the oldest that the data shows, no more than {tolerance:.1%} is lost"

"""Probe: a feature has counted the labels that it is to predict.

A target mean over the whole table, read from a file, is what the engine's clocks cannot see, and it need not be
strong. It shows when labels are shuffled among rows that have the same value of the feature, which takes nothing from
an honest one: given what the feature says, labels of one entity (a user, a shop) vary as labels of any other rows do,
or more, for entities have more in common than a feature knows. The mean of an entity's own labels leaves less to
vary: in every entity as many labels are positive as it says, which after shuffling is no longer so.

Spread: the mean over entities of (sum of residuals)^2 / rows, of labels less their mean in the feature's bin. Found
is a feature under which it is less than half of what shuffling leaves. Where labels of one entity are rationed (one
purchase a search, one churn a customer) they are as even without any feature, and the bound goes down with that.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.data.split import PARTS
from raypipe.definitions.label import LABEL
from raypipe.evaluation.leakage.finding import Found, Probed
from raypipe.evaluation.leakage.sample import Entity, Sample
from raypipe.evaluation.leakage.single_feature import Bins
from raypipe.evaluation.metrics import Floats

NAME = "shuffled_target"
LEAST_ENTITIES = 200  # below, half the spread may be chance: F(200, 200) has it once in a million
BOUND = 0.5
SHUFFLES = 3
STATIC = 0.9  # share of the entities in which a feature has one value, from which on it is taken for an entity's

Ints = NDArray[np.int64]


def probe(sample: Sample) -> Probed:
    figures: dict[str, dict[str, float]] = {}
    found = []
    for entity in sample.entities():
        measured = _by_feature(sample, entity)
        name = "+".join(entity)
        for feature, (spread, bound) in measured.items():
            figures.setdefault(name, {})[feature] = round(spread, 4)
            if spread < bound:
                says = f"given '{feature}', labels of one {name} are {spread:.2f} times as uneven as shuffled ones"
                found.append(Found(NAME, feature, spread, bound, f"{says}: it was made of them"))
    if not figures:
        return Probed(because=f"no feature is the same in all rows of {LEAST_ENTITIES} entities that have several")
    return Probed({"spread": figures}, found)


def _by_feature(sample: Sample, entity: Entity) -> dict[str, tuple[float, float]]:
    """Spread against shuffled, and the bound, for each numeric feature that is the entity's."""
    rows = _whole_entities(sample, entity)
    names = [name for name in _numbers(sample) if name not in entity]
    hashed, code = np.unique(rows.select(_hash(entity)).to_series().to_numpy(), return_inverse=True)
    if len(hashed) < LEAST_ENTITIES:
        return {}
    y, draw = _outcome(sample, rows), np.random.default_rng(sample.project.settings.training.seed)
    rationed = spread(y, np.zeros(len(y), np.int64), code, draw)
    made = {}
    for name in _of_entity(rows, entity, names):
        values = rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        found = spread(y, Bins.of(values).places(values), code, draw)
        if found is not None and rationed:
            made[name] = (found, BOUND * min(rationed, 1.0))
    return made


def _whole_entities(sample: Sample, entity: Entity) -> pl.DataFrame:
    """All rows, of every part, of as many entities as the settings' rows hold; none that has a single row."""
    columns = list(dict.fromkeys([*_numbers(sample), LABEL, *entity]))
    rows = sample.scan(PARTS, columns).drop_nulls(list(entity))
    total = sum(sample.training_set.rows(part) for part in PARTS)
    every = -(-total // sample.settings.rows)
    taken = rows.filter(_hash(entity) % every == 0).collect(engine="streaming")
    return taken.filter(pl.len().over(list(entity)) > 1)


def _hash(entity: Entity) -> pl.Expr:
    return pl.struct(entity).hash(seed=0)


def _numbers(sample: Sample) -> list[str]:
    return [name for name, dtype in sample.project.definitions.features().items() if dtype.is_numeric()]


def _of_entity(rows: pl.DataFrame, entity: Entity, names: list[str]) -> list[str]:
    """The features that are the same in all rows of nearly every entity, but not in all entities."""
    if not names or rows.is_empty():
        return []
    same = [(pl.col(n).min() == pl.col(n).max()).fill_null(value=False).alias(n) for n in names]
    shares = rows.group_by(list(entity)).agg(same).select(pl.col(names).mean())
    varied = rows.select(pl.col(names).n_unique()).row(0, named=True)
    return [name for name in names if shares[name][0] > STATIC and varied[name] > 2]


def _outcome(sample: Sample, rows: pl.DataFrame) -> Floats:
    """The label as a number; of a multiclass one whether it is the most frequent class."""
    y = sample.transforms.labels(rows).astype(np.float64)
    return y if sample.transforms.classes is None else (y == np.bincount(y.astype(np.intp)).argmax()).astype(np.float64)


def spread(y: Floats, places: Ints, entity: Ints, draw: np.random.Generator) -> float | None:
    """How uneven the labels of entities are given a feature's bins, 1: as uneven as shuffled within the bins.

    y, places, entity: shape (rows,). None if nothing is left to shuffle.
    """
    residual = y - _mean_in(places, y)
    order = np.argsort(places, kind="stable")
    shuffled = np.empty_like(residual)
    left = []
    for _ in range(SHUFFLES):
        shuffled[order] = residual[np.lexsort((draw.random(len(y)), places))]
        left.append(_uneven(shuffled, entity))
    return _uneven(residual, entity) / float(np.mean(left)) if np.mean(left) > 0 else None


def _mean_in(places: Ints, y: Floats) -> Floats:
    return (np.bincount(places, y) / np.maximum(np.bincount(places), 1))[places]


def _uneven(residual: Floats, entity: Ints) -> float:
    return float(np.mean(np.bincount(entity, residual) ** 2 / np.bincount(entity)))

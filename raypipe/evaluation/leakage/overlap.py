"""Probe: rows of validation and test that the model has learned from.

Three looks. Identical rows (all features and the label): in tables of few, coarse columns rows coincide, so that only
those count which no other row of training resembles in all columns but one; a coincidence has such neighbours, a copy has
none of its own. Keys of the spine that stand in several parts, where the contract lets keys repeat. And without time:
entities that several parts share and whose labels in training say those of the other parts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from raypipe.data.rules import PRIMARY_KEY
from raypipe.data.split import PARTS, TEST, TRAIN, VALIDATION
from raypipe.definitions.label import LABEL
from raypipe.evaluation.leakage.concordance import concordance
from raypipe.evaluation.leakage.finding import Found, Probed
from raypipe.evaluation.leakage.sample import Entity, Sample, evenly

NAME = "overlap"
LATER = (VALIDATION, TEST)
NEIGHBOURLESS = 0.1  # share of the rows that coincide; below, coincidence explains them (census data: up to 0.04)

Hashes = NDArray[np.uint64]


def probe(sample: Sample) -> Probed:
    figures, found = _copies(sample)
    for figure, finding in (_shared_keys(sample), _shared_entities(sample)):
        figures |= figure
        found += finding
    return Probed(figures, found)


Answer = tuple[dict[str, float], list[Found]]


def _copies(sample: Sample) -> Answer:
    columns, bound = [*sample.project.definitions.features(), LABEL], sample.settings.overlap
    later = hashes(evenly(sample.scan(LATER, columns), sample.settings.rows))
    total = later.sum(axis=1, dtype=np.uint64)
    twin = np.zeros(len(total), bool)
    for rows in _training(sample, columns):
        twin |= np.isin(total, rows.sum(axis=1, dtype=np.uint64))
    figures = {"rows": len(total), "identical": float(twin.mean())}
    if figures["identical"] <= bound:
        return figures, []
    near = neighboured(later[twin], _training(sample, columns))
    copies = float((~near).sum() / len(total))
    figures["identical_without_neighbour"] = copies
    says = f"{copies:.1%} of the validation and test rows stand in the training part, too, features and label alike"
    guilty = copies > max(bound, NEIGHBOURLESS * figures["identical"])
    return figures, [Found(NAME, None, copies, bound, says)] if guilty else []


def _training(sample: Sample, columns: list[str]) -> Iterator[Hashes]:
    """The hashes of the training part's rows, a file at a time."""
    for file in sample.training_set.files(TRAIN):
        yield hashes(pl.read_parquet(file, columns=columns))


def hashes(rows: pl.DataFrame) -> Hashes:
    """One hash a value, another for each column, shape (rows, columns); the sum of a row's is the row's."""
    hashed = rows.select(pl.col(name).hash(seed=at) for at, name in enumerate(rows.columns))
    return hashed.to_numpy().astype(np.uint64, copy=False)


def neighboured(twins: Hashes, training: Iterator[Hashes]) -> NDArray[np.bool_]:
    """Which of `twins`, rows that training has, have there another row that is equal in all columns but one."""
    rows, place = np.unique(twins, axis=0, return_inverse=True)
    total = rows.sum(axis=1, dtype=np.uint64)
    rest = total[:, None] - rows
    order = np.argsort(rest, axis=0, kind="stable")
    found = np.zeros(len(rows), bool)
    for at in range(rest.shape[1]):  # two that differ in one column are each other's neighbour
        by_rest = rest[order[:, at], at]
        equal = by_rest[1:] == by_rest[:-1]
        found[order[1:, at][equal]] = found[order[:-1, at][equal]] = True
    for part in training:
        part_total = part.sum(axis=1, dtype=np.uint64)
        for at in range(rest.shape[1]):
            by_rest = rest[order[:, at], at]
            part_rest = part_total - part[:, at]
            where = np.minimum(np.searchsorted(by_rest, part_rest), len(by_rest) - 1)
            row = order[where, at]
            found[row[(by_rest[where] == part_rest) & (total[row] != part_total)]] = True
    return found[place.ravel()]


def _shared_keys(sample: Sample) -> Answer:
    """Keys of rows that stand in several parts. Where the contract was kept, each key has one row."""
    spine = sample.label.spine
    key = spine.contract.primary_key()
    if not key or not sample.sources[spine.name].violations.get(PRIMARY_KEY):
        return {}, []
    parts = [sample.scan([part], key).with_columns(pl.lit(part).alias("__part")) for part in PARTS]
    counted = pl.concat(parts).group_by(key).agg(pl.len().alias("rows"), pl.col("__part").n_unique().alias("parts"))
    shared = counted.select(pl.col("rows").filter(pl.col("parts") > 1).sum()).collect(engine="streaming").item()
    share = shared / sum(sample.training_set.rows(part) for part in PARTS)
    names, bound = ", ".join(key), sample.settings.overlap
    found = Found(NAME, names, share, bound, f"{share:.1%} of the rows have a key ({names}) that several parts share")
    return {"shared_keys": share}, [found] if share > bound else []


def _shared_entities(sample: Sample) -> Answer:
    if not sample.label.spine.static:
        return {}, []
    figures: dict[str, float] = {}
    found = []
    for entity in sample.entities():
        figure, finding = _shared_entity(sample, entity)
        figures |= figure
        found += finding
    return figures, found


def _shared_entity(sample: Sample, entity: Entity) -> Answer:
    """How well the mean label of an entity's training rows orders its rows in the other parts."""
    by = list(entity)
    train = sample.scan([TRAIN], [*by, LABEL]).drop_nulls(by)
    targets = sample.target_columns(train.collect_schema()[LABEL])
    means = train.select(*by, *targets).group_by(by).mean()
    rows = evenly(sample.scan(LATER, [*by, LABEL]), sample.settings.rows)
    known = rows.join(means.collect(engine="streaming"), on=by, how="inner")
    share = known.height / max(rows.height, 1)
    if share <= sample.settings.overlap:
        return {}, []
    said = known.select(cs.starts_with("__target_")).to_numpy()
    label, single = sample.transforms.labels(known).astype(np.float64), sample.transforms.classes is None
    score = concordance(sample.task, label, said[:, 0] if single else said)
    if score is None:
        return {}, []
    name, bound = "+".join(entity), sample.settings.single_feature_auc
    says = (
        f"{share:.1%} of the validation and test rows have a {name} that training knows, whose label there puts "
        f"{score.value:.1%} of their pairs in order: split by {name}"
    )
    return {f"known_by_{name}": score.value}, [Found(NAME, name, score.value, bound, says)] if score.low > bound else []

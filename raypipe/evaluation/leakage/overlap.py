"""Probe: rows of validation and test that the model has learned from.

Three looks. Identical rows (all features and the label): in tables of few, coarse columns rows coincide, so that only
those count whose coincidence is unlikely: of n training rows that differ in one column alone, whose value has the
share f of all training rows, about n f / (1 - f) would have that value, too. Keys of the spine that stand in several
parts, where the contract lets keys repeat. And without time: entities that several parts share and whose labels in
training say those of the other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from raypipe.data.rules import PRIMARY_KEY
from raypipe.data.split import PARTS, TEST, TRAIN, VALIDATION
from raypipe.definitions.label import LABEL
from raypipe.definitions.views import is_category
from raypipe.evaluation.leakage.concordance import Concordance, concordance
from raypipe.evaluation.leakage.finding import Found, Probed
from raypipe.evaluation.leakage.sample import Entity, Sample, evenly
from raypipe.evaluation.metrics import Floats

NAME = "overlap"
LATER = (VALIDATION, TEST)
CHANCE = 0.01  # expected coincidences from which on a row is taken for one
COINCIDING = 0.1  # of the identical rows so many may be unlikely ones: columns hang together (census data: up to 0.04)

Hashes = NDArray[np.uint64]


def probe(sample: Sample) -> Probed:
    looks = (_copies(sample), _shared_keys(sample), _shared_entities(sample))
    figures = {name: figure for figures, _ in looks for name, figure in figures.items()}
    return Probed(figures, [one for _, found in looks for one in found])


Answer = tuple[dict[str, Any], list[Found]]


def _copies(sample: Sample) -> Answer:
    columns, bound = [*sample.project.definitions.features(), LABEL], sample.settings.overlap
    later = hashes(evenly(sample.scan(LATER, columns), sample.settings.rows))
    total = later.sum(axis=1, dtype=np.uint64)
    twin = np.zeros(len(total), bool)
    for rows in _training(sample, columns):
        twin |= np.isin(total, rows.sum(axis=1, dtype=np.uint64))
    figures: dict[str, Any] = {"rows": len(total), "identical": float(twin.mean())}
    if figures["identical"] <= bound:
        return figures, []
    chance = coincidences(later[twin], lambda: _training(sample, columns))
    copies = float((chance < CHANCE).sum() / len(total))
    figures["copies"] = copies
    says = f"{copies:.1%} of the validation and test rows stand in the training part, too, features and label alike"
    guilty = copies > max(bound, COINCIDING * figures["identical"])
    return figures, [Found(NAME, None, copies, bound, says)] if guilty else []


def _training(sample: Sample, columns: list[str]) -> Iterator[Hashes]:
    """The hashes of the training part's rows, a file at a time."""
    for file in sample.training_set.files(TRAIN):
        yield hashes(pl.read_parquet(file, columns=columns))


def hashes(rows: pl.DataFrame) -> Hashes:
    """One hash a value, another for each column, shape (rows, columns); the sum of a row's is the row's."""
    texts = (pl.col(n).cast(pl.String) if is_category(dtype) else pl.col(n) for n, dtype in rows.schema.items())
    hashed = rows.select(value.hash(seed=at) for at, value in enumerate(texts))
    return hashed.to_numpy().astype(np.uint64, copy=False)


def coincidences(twins: Hashes, training: Callable[[], Iterator[Hashes]]) -> Floats:
    """How many training rows should be equal to each of `twins`, rows that training has, by chance: from the column
    that would allow most."""
    total, rows = twins.sum(axis=1, dtype=np.uint64), 0
    exact, rest, own = np.zeros(len(twins)), np.zeros(twins.shape), np.zeros(twins.shape)
    for part in training():
        rows, part_total = rows + len(part), part.sum(axis=1, dtype=np.uint64)
        exact += _occurrences(total, part_total)
        for at in range(twins.shape[1]):
            rest[:, at] += _occurrences(total - twins[:, at], part_total - part[:, at])
            own[:, at] += _occurrences(twins[:, at], part[:, at])
    share = own / rows
    others = rest - exact[:, None]
    expected: Floats = np.where(others > 0, others * share / np.maximum(1 - share, 1 / rows), 0).max(axis=1)
    return expected


def _occurrences(keys: NDArray[np.uint64], among: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How often each of `keys` stands in `among`, which is not empty."""
    values, counts = np.unique(among, return_counts=True)
    at = np.minimum(np.searchsorted(values, keys), len(values) - 1)
    return np.where(values[at] == keys, counts[at], 0)


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
    scores = {"+".join(entity): _shared_entity(sample, entity) for entity in sample.entities()}
    bound = sample.settings.single_feature_auc
    found = [
        Found(
            NAME,
            name,
            score.value,
            bound,
            f"{share:.1%} of the validation and test rows have a {name} that training knows, whose label there puts "
            f"{score.value:.1%} of their pairs in order: split by {name}",
        )
        for name, (share, score) in scores.items()
        if score and score.low > bound
    ]
    return {"known_by": {name: round(score.value, 4) for name, (_, score) in scores.items() if score}}, found


def _shared_entity(sample: Sample, entity: Entity) -> tuple[float, Concordance | None]:
    """The share of the later rows whose entity is in the training part, and how well the mean label that it has there
    orders them; None where they are too few."""
    by = list(entity)
    train = sample.scan([TRAIN], [*by, LABEL]).drop_nulls(by)
    targets = sample.target_columns(train.collect_schema()[LABEL])
    means = train.select(*by, *targets).group_by(by).mean()
    rows = evenly(sample.scan(LATER, [*by, LABEL]), sample.settings.rows)
    known = rows.join(means.collect(engine="streaming"), on=by, how="inner")
    share = known.height / max(rows.height, 1)
    if share <= sample.settings.overlap:
        return share, None
    said = known.select(cs.starts_with("__target_")).to_numpy()
    label = sample.transforms.labels(known).astype(np.float64)
    return share, concordance(sample.task, label, said if sample.task == "multiclass" else said[:, 0])

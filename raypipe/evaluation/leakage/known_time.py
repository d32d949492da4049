"""Probe: a feature saw a row before it was known, or an outcome is declared to be known too early.

Three independent looks. Some rows' windows and latest values are computed again from the source's own columns by the
filter `known time <= prediction time`, and compared with what the training set holds: for a build that went wrong. Of
the label's source: rows that are known before they happened; and rows that a view sees at their own prediction time,
with their outcome: for a delay or a known time that is declared too early.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import polars as pl

from raypipe.data.split import PARTS
from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.label import LABEL, PREDICTION_TIME
from raypipe.definitions.source import ROW
from raypipe.evaluation.leakage import recompute
from raypipe.evaluation.leakage.finding import Found, Probed
from raypipe.evaluation.leakage.recompute import EVENT, KNOWN
from raypipe.evaluation.leakage.sample import Sample, evenly, scan
from raypipe.features.partitions import us

NAME = "known_time"
ROWS = 16  # that are computed again
FEW = 0.001  # share of the label's rows whose clocks may be wrong: slips in the data, no declaration


def probe(sample: Sample) -> Probed:
    if sample.label.spine.static:
        return Probed(because="there is no time")
    wrong, compared = _computed_again(sample)
    found = []
    for name, rows in wrong.items():
        says = f"'{name}' of {len(rows)} of {ROWS} rows is not what was known then, the first is __row {rows[0]}"
        found.append(Found(NAME, name, len(rows), 0, says))
    counts = _declared(sample)
    return Probed({"values_compared": compared, **counts}, [*found, *_too_early(sample, counts)])


def _computed_again(sample: Sample) -> tuple[dict[str, list[int]], int]:
    """Rows (`__row`) by the feature that differs, and how many values were compared."""
    rows = evenly(scan([file for part in PARTS for file in sample.training_set.files(part)]), ROWS)
    wrong, compared = defaultdict(list), 0
    for view in sample.looking_back:
        quantiles = _quantiles(view)
        for row, right in _right(sample, view, rows):
            compared += len(right)
            for name, value in right.items():
                if not recompute.agrees(row[name], value, rough=name in quantiles):
                    wrong[name].append(row[ROW])
    return dict(wrong), compared


def _right(
    sample: Sample, view: FeatureView | LatestView, rows: pl.DataFrame
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each row with what the view's features should be; a row without the entity is left out."""
    asked = rows.drop_nulls(list(view.entity))
    source = sample.sources[view.source.name].scan(as_of=sample.as_of, columns=recompute.needed(view))
    wanted = asked.select(view.entity).unique().lazy()
    of_asked = source.join(wanted, on=list(view.entity), how="semi").with_columns(recompute.clocks(view.source))
    events = of_asked.collect(engine="streaming")
    for row in asked.iter_rows(named=True):
        own = events.filter(pl.all_horizontal(pl.col(c) == pl.lit(row[c]) for c in view.entity))
        yield row, recompute.expected(view, own, us(row[PREDICTION_TIME]))


def _quantiles(view: FeatureView | LatestView) -> set[str]:
    if isinstance(view, LatestView):
        return set()
    kinds = {name for name, a in view.aggregations.items() if a.kind == "quantile"}
    return {f"{view.name}_{window}_{name}" for window in view.windows for name in kinds}


def _declared(sample: Sample) -> dict[str, int]:
    """Of the labelled rows of the spine's source: known before they happened, and to be seen at their own time."""
    label = sample.label
    assert label.prediction_time is not None, "a spine with a clock has one"
    asked = label.prediction_time.dt.epoch("us").alias(PREDICTION_TIME)
    rows = sample.sources[label.spine.name].scan(as_of=sample.as_of)
    frame = rows.select(asked, label.outcome().alias(LABEL), *recompute.clocks(label.spine)).drop_nulls()
    seen = (pl.col(KNOWN) <= pl.col(PREDICTION_TIME)) & (pl.col(EVENT) <= pl.col(PREDICTION_TIME))
    early = pl.col(KNOWN) < pl.col(EVENT)
    counted = frame.select(
        pl.len().alias("outcomes"),
        early.sum().alias("known_before_they_happened"),
        seen.sum().alias("seen_by_their_own_prediction"),
    )
    return counted.collect(engine="streaming").row(0, named=True)


def _too_early(sample: Sample, counts: dict[str, int]) -> list[Found]:
    spine, total = sample.label.spine, max(counts["outcomes"], 1)
    found = []
    early = counts["known_before_they_happened"] / total
    if early > FEW:
        says = f"{early:.1%} of the outcomes of source '{spine.name}' are known before they happened"
        found.append(Found(NAME, None, early, FEW, says))
    seen = counts["seen_by_their_own_prediction"] / total
    for view in sample.looking_back:
        if view.source is spine and seen > FEW:
            says = f"'{view.name}' sees {seen:.1%} of the rows of '{spine.name}' at their own prediction time"
            found.append(Found(NAME, view.name, seen, FEW, f"{says}: is its known time or delay right?"))
    return found

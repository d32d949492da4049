"""Metrics by the values of declared columns, with intervals, and against a champion.

The intervals of one column's slices hold together: each has the confidence 1 - (1 - confidence) / slices (Bonferroni).
The worst of many slices is then not taken for bad because some slice is always the worst.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from raypipe.definitions.label import Task
from raypipe.evaluation.binning import binned
from raypipe.evaluation.compare import differences
from raypipe.evaluation.influence import Ints
from raypipe.evaluation.intervals import measured
from raypipe.evaluation.metrics import Scored, measurable, measure
from raypipe.evaluation.tested import CHAMPION, Tested
from raypipe.project.evaluation_settings import Evaluation

Slice = dict[str, Any]


def slices(tested: Tested) -> dict[str, list[Slice]]:
    """`by_slice` of each declared column, by its name."""
    chosen: dict[str, Any] = {"settings": tested.settings, "seed": tested.seed, "champion": tested.said.get(CHAMPION)}
    return {
        column: by_slice(tested.task, tested.model, tested.rows[column], tested.blocks.of, **chosen)
        for column in tested.settings.slices
    }


def by_slice(
    task: Task,
    found: Scored,
    values: pl.Series,
    blocks: Ints,
    *,
    champion: Scored | None,
    settings: Evaluation,
    seed: int,
) -> list[Slice]:
    """Metrics of the rows of each value or bin, largest first; too small ones and those of one label have none.

    values, blocks: shape (rows,). champion: what it says of the same rows. A group of a ranking is divided where its
    rows have different values.
    """
    column, bins = binned(values, settings.slice_bins), settings.calibration_bins
    places = [np.flatnonzero(column.codes == code) for code in range(len(column.names))]
    least = settings.slice_min_rows
    told = [code for code, at in enumerate(places) if len(at) >= least and measurable(task, found.take(at))]
    together = 1 - (1 - settings.confidence) / max(len(told), 1)
    chosen: dict[str, Any] = {"confidence": together, "bins": bins, "seed": seed}
    made: list[Slice] = [{"value": column.names[code], "rows": len(at)} for code, at in enumerate(places)]
    for code in told:
        at = places[code]
        rows, block = found.take(at), blocks[at]
        figures = measured(task, rows, block, **chosen)
        made[code] |= measure(task, rows, bins) | {"intervals": {name: f.to_json() for name, f in figures.items()}}
        if champion is not None:
            against = differences(task, rows, champion.take(at), block, **chosen)
            made[code]["champion"] = {name: one.figure.to_json() for name, one in against.items()}
    return sorted((s for s in made if s["rows"]), key=lambda s: (-s["rows"], str(s["value"])))

"""Metrics by the values of declared columns, with intervals, and against a champion.

The intervals of one column's slices hold together: each has the confidence 1 - (1 - confidence) / slices (Bonferroni),
so that the lowest of many is not taken for bad because it is the lowest of many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from raypipe.definitions.label import Task
from raypipe.evaluation.binning import binned
from raypipe.evaluation.compare import compared
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.influence import Ints
from raypipe.evaluation.intervals import measured
from raypipe.evaluation.metrics import Scored, measurable, measure
from raypipe.evaluation.names import LOWER_IS_BETTER
from raypipe.evaluation.tested import CHAMPION, Tested
from raypipe.project.evaluation_settings import Evaluation

Described = dict[str, Any]


def slices(tested: Tested) -> dict[str, list[Described]]:
    """`by_slice` of each declared column, by its name."""
    chosen = (tested.task, tested.model, tested.said.get(CHAMPION))
    return {
        column: by_slice(*chosen, tested.rows[column], tested.blocks.of, tested.settings, tested.seed)
        for column in tested.settings.slices
    }


def by_slice(
    task: Task,
    found: Scored,
    champion: Scored | None,
    values: pl.Series,
    blocks: Ints,
    settings: Evaluation,
    seed: int,
) -> list[Described]:
    """Metrics of the rows of each value or bin, largest first; slices too small or whose labels do not differ have none.

    champion: what it says of the same rows. values, blocks: shape (rows,). A group of a ranking is divided where its
    rows have different values.
    """
    bins = binned(values, settings.slice_bins)
    places = {code: np.flatnonzero(bins.codes == code) for code in np.flatnonzero(bins.rows())}
    told = {
        code
        for code, at in places.items()
        if len(at) >= settings.slice_min_rows and measurable(task, found.take(at))
    }
    confidence = 1 - (1 - settings.confidence) / max(len(told), 1)
    made = []
    for code, at in places.items():
        described: Described = {"value": bins.names[code], "rows": len(at)}
        if code in told:
            rows, chosen = found.take(at), {"confidence": confidence, "bins": settings.calibration_bins, "seed": seed}
            described |= measure(task, rows, settings.calibration_bins)
            figures = measured(task, rows, blocks[at], **chosen)
            described["intervals"] = {name: figure.to_json() for name, figure in figures.items()}
            if champion is not None:
                ...
        made.append(described)
    return sorted(made, key=lambda s: (-s["rows"], str(s["value"])))


def worst(slices: Sequence[Described], metric: str) -> Described | None:
    """The slice in which `metric` is worst, as `by_slice` describes it; None if no slice has it."""
    told = [s for s in slices if metric in s.get("intervals", {})]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return min(told, key=lambda s: sign * s[metric], default=None)


def figures(by_column: Mapping[str, Sequence[Described]]) -> dict[str, Figure]:
    """`slice.<column>.<metric>`: the worst of the column's slices; `worst` tells which that is. The interval is of the
    worst there may be: its ends are the worst of the ends."""

"""The slices of the test part in which the model is worst, by request columns and features: see
raypipe.evaluation.slice_search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.evaluation.avoidable import correctable
from raypipe.evaluation.binning import Binned, binned, frequent
from raypipe.evaluation.slice_search import CORRECTION, Search, search
from raypipe.evaluation.tested import Tested

ROWS = 200_000  # at most, evenly spaced: a few seconds on one core


def worst_slices(tested: Tested) -> dict[str, Any] | None:
    """The slices found, worst first, with how many were tested; None in a ranking. Holds all columns of ROWS rows."""
    counts = np.arange(tested.rows.height) if tested.model.weight is None else np.flatnonzero(tested.model.weight > 0)
    places = counts[:: -(-len(counts) // ROWS)]
    rows = correctable(tested.task, tested.model.take(places))
    if rows is None:
        return None
    settings = tested.settings.worst_slices
    columns = _columns(tested, places)
    paired = list(columns)[: settings.pair_columns]
    asked = Search(rows, tested.blocks.of[places], columns, paired, settings, tested.settings.confidence)
    count, found = search(asked)
    return {
        "metric": "avoidable_log_loss" if rows.binary else "avoidable_squared_error",
        "rows": len(places),
        "least_rows": settings.least_rows,
        "least_effect": asked.least_effect,
        "tested": count,
        "correction": CORRECTION,
        "found": [one.to_json() for one in found],
    }


def _columns(tested: Tested, places: NDArray[np.intp]) -> dict[str, Binned]:
    """Request columns, then features by gain, none of them personal, in bins that have enough rows; of columns that
    divide the rows alike the first."""
    gain = tested.booster.get_score(importance_type="total_gain")
    features = sorted(tested.transforms.names, key=lambda name: -float(gain.get(name, 0)))  # type: ignore[arg-type]
    definitions = tested.project.definitions
    personal = definitions.personal()
    names = [name for name in (*definitions.label.request, *features) if name not in personal]
    values = tested.gather(names, places)
    settings = tested.settings.worst_slices
    columns, seen = {}, set()
    for name in names:
        column = frequent(binned(values[name], settings.bins), settings.least_rows)
        division = column.codes.tobytes()
        if column.names and division not in seen:
            columns[name] = column
            seen.add(division)
    return columns

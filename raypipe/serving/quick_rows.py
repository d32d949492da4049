"""A request's JSON rows, up to the model's matrix, without Polars: a few are read, looked up and computed singly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raypipe.features.online import OnlineState, Snapshot
from raypipe.features.row_plan import RowPlan
from raypipe.features.row_proof import unproven
from raypipe.features.row_transforms import as_matrix
from raypipe.features.row_values import FallBackError, UnsupportedError
from raypipe.features.transforms import Transforms
from raypipe.serving.plain_rows import Matrix, PlainRows
from raypipe.serving.row_reader import REFUSED, RowReader

FEW_ROWS = 16  # about as many are computed one by one in the time that Polars needs for any number of them


class QuickRows:
    """The request contract and the row plan of one version. Threads may share it."""

    def __init__(self, state: OnlineState, plan: RowPlan, reader: RowReader, max_past_us: int) -> None:
        self._state, self._plan, self._reader, self._max_past_us = state, plan, reader, max_past_us

    def compute(self, rows: Sequence[Any]) -> Matrix | None:
        """The rows as the model is given them; None: they are many, or one is wrong or has values for Polars."""
        if not 0 < len(rows) <= FEW_ROWS:
            return None
        try:
            fields = [self._reader.read(row) for row in rows]
        except REFUSED:
            return None
        try:
            with self._state.snapshot() as known:
                found = [self._row(known, row) for row in fields]
        except ArithmeticError:  # FallBackError, or a number beyond a double
            return None
        numbers, margins, times, entities_known = zip(*found, strict=True)
        return Matrix(
            as_matrix(numbers),
            None if margins[0] is None else np.array(margins, np.float32),
            None if times[0] is None else np.array(times, np.int64),
            np.array(entities_known, np.bool_),
        )

    def _row(self, known: Snapshot, fields: list[Any]) -> tuple[list[Any], float | None, int | None, bool]:
        plan, time = self._plan, None
        wanted = None if plan.prediction_time is None else plan.prediction_time(fields)
        if plan.prediction_time is not None:
            if wanted is None:
                raise FallBackError
            time = max(wanted, known.as_of_us)
            if time - wanted > self._max_past_us:
                raise FallBackError
        looked_up, entities_known = known.row(plan.keys(fields), known.as_of_us if time is None else time)
        return plan.numbers(fields, wanted, looked_up), plan.margin(fields, wanted), time, entities_known


def quick_rows(
    state: OnlineState, transforms: Transforms, reader: RowReader, max_past_us: int
) -> tuple[PlainRows | QuickRows | None, dict[str, Any]]:
    """The quick way of a version, None where it has none; and the facts for its metadata: `compiled`, with the rows of
    a request up to which it is (None: any number), or the `reason` why Polars computes every row."""
    try:
        return PlainRows(state.spec, transforms), {"compiled": True, "most_rows": None}
    except UnsupportedError:
        return _row_by_row(state, transforms, reader, max_past_us)


def _row_by_row(
    state: OnlineState, transforms: Transforms, reader: RowReader, max_past_us: int
) -> tuple[QuickRows | None, dict[str, Any]]:
    try:
        plan = RowPlan(state, transforms)
    except UnsupportedError as error:
        return None, {"compiled": False, "reason": f"not compiled: {error}"}
    reason = unproven(plan, state, transforms)
    if reason is not None:
        return None, {"compiled": False, "reason": f"not used: {reason}"}
    return QuickRows(state, plan, reader, max_past_us), {"compiled": True, "most_rows": FEW_ROWS}

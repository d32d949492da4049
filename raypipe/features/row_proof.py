"""Proof that a row plan gives what Polars gives, on made-up rows with the edges of every type. Made at each load."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import polars as pl

from raypipe.definitions.label import PREDICTION_TIME
from raypipe.features.online import OnlineState, with_expressions
from raypipe.features.row_plan import RowPlan
from raypipe.features.row_transforms import as_matrix
from raypipe.features.row_values import FallBackError, Row, as_float32, bounds, physical
from raypipe.features.transforms import Category, Transforms

_ROWS, _ENOUGH = 300, 50
_NULLS = 0.1
_SEED = 11
_FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e30, -1e30, 1e-40, 5e-324, 1e300, 2.0**24 + 1, 2.0**53]
_NOT_FINITE = [float("nan"), float("inf"), float("-inf")]
_WORDS = ["", "a", "Z9", "no such category", "é", "\U0001d538"]
_DAY_US = 86_400_000_000
_FIRST_DAY, _LAST_DAY = -106_651, 106_650  # 1678-01-01 and 2261-12-31, the request contract's times
_CLOCK_CHANGES_US = [1_362_898_800_000_000, 1_383_458_400_000_000, 1_330_473_600_000_000]  # New York's; a leap day


def unproven(plan: RowPlan, state: OnlineState, transforms: Transforms) -> str | None:
    """Why `plan` may not be used: the first difference from Polars, or too few rows that it computes. None: none."""
    rows = _made_up(plan, state, transforms)
    if len(rows) < _ENOUGH:
        return f"only {len(rows)} of {_ROWS} made-up rows could be computed"
    fields = _frame([row for row, _, _ in rows], dict(state.spec.schema()))
    looked_up = _frame([values for _, values, _ in rows], state.schema)
    try:
        times = state.prediction_times(fields)
        features = with_expressions(state, fields, looked_up)
        expected = transforms.matrix(features)
        margins = _margins(state, fields)
    except pl.exceptions.PolarsError as error:
        return f"Polars fails where the plan does not: {str(error).splitlines()[0]}"
    if times is not None and times.tolist() != [found[0] for _, _, found in rows]:
        return "prediction times differ"
    if margins is not None and margins != [found[2] for _, _, found in rows]:
        return "base margins differ"
    got = as_matrix([found[1] for _, _, found in rows])
    unequal = ~((got == expected) | (np.isnan(got) & np.isnan(expected)))
    return f"feature {transforms.names[int(np.argmax(unequal.any(axis=0)))]} differs" if unequal.any() else None


def _made_up(
    plan: RowPlan, state: OnlineState, transforms: Transforms
) -> list[tuple[Row, Row, tuple[int | None, list[Any], float | None]]]:
    """Rows that the plan computes, what is looked up for them, and the plan's time, numbers and margin."""
    dice, found = random.Random(_SEED), []  # noqa: S311 (no secret)
    words = [*_WORDS, *{c for t in transforms.features.values() if isinstance(t, Category) for c in list(t.codes)[:50]}]
    schema = state.spec.schema()
    for _ in range(_ROWS):
        fields = [_value(dice, dtype, words, finite=True) for dtype in schema.values()]
        values = [_value(dice, dtype, words, finite=False) for dtype in state.schema.values()]
        try:
            plan.keys(fields)
            time = None if plan.prediction_time is None else plan.prediction_time(fields)
            if plan.prediction_time is not None and time is None:
                continue
            found.append((fields, values, (time, plan.numbers(fields, time, values), plan.margin(fields, time))))
        except FallBackError:
            continue
    return found


def _value(dice: random.Random, dtype: Any, words: list[str], *, finite: bool) -> Any:
    """One value of the type, as the plan has it. finite: as JSON does, without NaN and infinities."""
    if dtype == pl.Boolean:
        return dice.choice([True, False, None])
    return None if dice.random() < _NULLS else _present(dice, dtype, words, finite=finite)


def _present(dice: random.Random, dtype: Any, words: list[str], *, finite: bool) -> Any:
    if dtype == pl.String:
        return dice.choice(words)
    if dtype == pl.Datetime:
        day = dice.choice([dice.randrange(_FIRST_DAY, _LAST_DAY), dice.randrange(10_000, 25_000)])
        return dice.choice(
            [day * _DAY_US + dice.randrange(_DAY_US), dice.choice(_CLOCK_CHANGES_US) + dice.randrange(-2, 3)]
        )
    if dtype == pl.Date:
        return dice.randrange(_FIRST_DAY, _LAST_DAY)
    if dtype.is_float():
        edges = _FLOATS if finite else [*_FLOATS, *_NOT_FINITE]
        value = dice.choice([dice.choice(edges), dice.gauss(0, 1), dice.gauss(0, 1000), float(dice.randrange(100))])
        return value if dtype == pl.Float64 or abs(value) > 1e38 else as_float32(value)
    low, high = bounds(dtype() if isinstance(dtype, type) else dtype) or (0, 0)
    return dice.choice([low, high, max(low, min(high, 2**53 + 1)), dice.randrange(100), dice.randrange(100)])


def _frame(rows: list[Row], schema: Any) -> pl.DataFrame:
    columns = zip(*rows, strict=True) if rows and rows[0] else []
    return pl.DataFrame(
        [
            pl.Series(name, list(c), dtype=physical(dtype)).cast(dtype)
            for (name, dtype), c in zip(schema.items(), columns, strict=True)
        ]
    )


def _margins(state: OnlineState, fields: pl.DataFrame) -> list[float] | None:
    expression = state.spec.base_margin_expression()
    if expression is None:
        return None
    timed = (
        fields if state.prediction_time is None else fields.with_columns(state.prediction_time.alias(PREDICTION_TIME))
    )
    return timed.select(expression.cast(pl.Float32).alias("margin"))["margin"].to_list()

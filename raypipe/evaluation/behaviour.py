"""Run the project's behavioural tests (raypipe.definitions.behaviour) on rows of the test part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from raypipe.definitions import Behaviour, Definitions, DerivedView, Direction, Invariance, RequestView
from raypipe.definitions.behaviour import changes, words
from raypipe.definitions.expressions import roots
from raypipe.definitions.label import BASE_MARGIN, PREDICTION_TIME
from raypipe.definitions.source import ROW
from raypipe.errors import DefinitionError, nearest
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.metrics import Floats
from raypipe.evaluation.sample import evenly, matching
from raypipe.evaluation.tested import Tested
from raypipe.features.score import score

ROWS = 20_000  # a test, evenly over the test rows that it is about
_NARROW = cs.integer() - cs.by_dtype(pl.Int64, pl.UInt64)  # arithmetic on them would wrap around


def behaviour(tested: Tested) -> list[dict[str, Any]]:
    """What came of each test, in the order of features.py: the rows that it is about (`matching`) and of them the rows
    tried, how many failed, whether the test `holds` (null: no row to try), and the row that failed most as an example.
    """
    return [_run(test, tested) for test in tested.project.definitions.behaviours]


def figures(value: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """What a rule of the gate may ask of `behaviour`: the number of tests that fail. One that no row could be tried for
    may fail or not."""
    outcomes = [test["holds"] for test in value]
    failed = float(outcomes.count(False))
    return {"behaviour.failed": Figure(failed, failed, failed + outcomes.count(None))}


def _run(test: Behaviour, tested: Tested) -> dict[str, Any]:
    about = matching(tested, test.where)
    places = about[evenly(len(about), ROWS)]
    columns = [ROW, *tested.project.definitions.label.request, PREDICTION_TIME, *tested.scored]
    frame, before = tested.gather(columns, places), tested.model.score[places]
    made = changed(frame, test, tested.project.definitions) if changes(test) else frame
    after = score(tested.booster, tested.transforms, made) if changes(test) and len(places) else before
    off = excess(test, _meant(before, test, tested), _meant(after, test, tested))
    failed = ~(off <= 0)  # a score that is NaN fails
    share = float(failed.mean()) if len(places) else None
    worst = int(np.argmax(np.where(failed, np.nan_to_num(off, nan=np.inf), -np.inf))) if failed.any() else None
    return {
        "name": test.name,
        "kind": type(test).__name__,
        "matching": len(about),
        "rows": len(places),
        "failed": int(failed.sum()),
        "max_failures": test.max_failures,
        "holds": None if share is None else share <= test.max_failures,
        "example": None if worst is None else _example(test, worst, (frame, before), (made, after), tested),
    }


def changed(rows: pl.DataFrame, test: Behaviour, definitions: Definitions) -> pl.DataFrame:
    """The rows of a training set with the test's change, and with what follows from it: prediction time, base margin,
    request views and derived views. A feature that the change names has what the change says.

    Raises DefinitionError for a value that the column's type has no room for.
    """
    new = changes(test)
    try:
        wide = rows.with_columns(_NARROW.cast(pl.Int64))
        said = wide.with_columns(e.cast(rows.schema[name]).alias(name) for name, e in new.items()).select(*new)
        return _made_again(rows, said, definitions)
    except pl.exceptions.PolarsError as error:
        raise DefinitionError(
            "a change cannot be made on some row",
            where=f"{words(test)}.change",
            got=type(error).__name__,
            hint="narrow the test's rows by where=..., or clip the new value to what the column holds",
        ) from None


def _made_again(rows: pl.DataFrame, said: pl.DataFrame, definitions: Definitions) -> pl.DataFrame:
    label = definitions.label
    frame = rows.with_columns(said[name] for name in said.columns if name in label.request)
    if label.prediction_time is not None:
        frame = frame.with_columns(label.prediction_time.alias(PREDICTION_TIME))
    for view, names in zip(definitions.views, definitions.features_by_view().values(), strict=True):
        if isinstance(view, RequestView | DerivedView):
            frame = frame.with_columns(view.columns())
        frame = frame.with_columns(said[name] for name in names if name in said.columns)
    margin = label.request_columns().get(BASE_MARGIN)
    return frame if margin is None else frame.with_columns(margin.alias(BASE_MARGIN))


def excess(test: Behaviour, before: Floats, after: Floats) -> Floats:
    """By how much each row fails, shape (rows,); at most 0 where it does not. before, after: shape (rows,), or of an
    Invariance (rows, classes)."""
    if isinstance(test, Invariance):
        moved = np.abs(after - before)
        return (moved if moved.ndim == 1 else moved.max(axis=1)) - test.within
    if isinstance(test, Direction):
        backwards = before - after if test.expect == "increase" else after - before
        return backwards - test.tolerance
    low, high = test.score
    return np.asarray(np.maximum(low - before, before - high))


def _meant(scores: Floats, test: Behaviour, tested: Tested) -> Floats:
    """The scores that the test is about, as doubles. Raises DefinitionError for a class that training never saw."""
    wide = scores.astype(np.float64)
    if test.of is None:
        return wide
    classes = tested.transforms.classes or ()
    if test.of not in classes:
        raise DefinitionError(
            f"the training split has no class {test.of!r}",
            where=f"{words(test)}.of",
            hint=nearest(str(test.of), [str(c) for c in classes]),
        )
    place: NDArray[np.float64] = wide[:, classes.index(test.of)]
    return place


def _example(
    test: Behaviour,
    at: int,
    before: tuple[pl.DataFrame, Floats],
    after: tuple[pl.DataFrame, Floats],
    tested: Tested,
) -> dict[str, Any]:
    """One row with its scores, and the values that the test speaks of, but for those made of personal columns."""
    definitions, new = tested.project.definitions, changes(test)
    read = set(new) | {name for e in (*new.values(), test.where) if e is not None for name in roots(e)}
    shown = sorted(read - definitions.personal())
    (old, was), (made, became) = before, after
    return {
        "row": old[ROW][at],
        "time": _plain(old[PREDICTION_TIME][at]),
        "score": was[at].tolist(),
        "score_changed": became[at].tolist() if new else None,
        "values": {name: _plain(old[name][at]) for name in shown},
        "changed": {name: _plain(made[name][at]) for name in shown if name in new},
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it: times in ISO 8601."""
    return value if isinstance(value, int | float | str | None) else str(value)

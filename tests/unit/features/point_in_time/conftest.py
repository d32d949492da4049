"""Random histories of visits, every aggregation over them, and what plain loops make of both."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from datetime import date
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import dataframely as dy
import polars as pl
import pytest

import raypipe as rp
from raypipe.features.point_in_time import event_columns, view_features

Row = dict[str, Any]

TIME = pl.Datetime("us", "UTC")
MINUTE, HOUR = 60_000_000, 3_600_000_000
NOON = 1_388_750_400_000_000  # 2014-01-03T12:00Z


class Visits(dy.Schema):
    visit = dy.Int64(primary_key=True)
    user = dy.String(nullable=True)
    shop = dy.Int64(nullable=True)
    x = dy.Float64(nullable=True)
    f = dy.Float32(nullable=True)
    n = dy.Int64(nullable=True)
    flag = dy.Bool(nullable=True)
    word = dy.String(nullable=True)
    day = dy.Date(nullable=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    known = dy.Datetime(time_unit="us", time_zone="UTC")


CLOCKS = ["__event_time", "__known_time", "__replaced_at"]
EVENTS = {**Visits.create_empty().schema, "__row": pl.Int64, **dict.fromkeys(CLOCKS, pl.Int64)}
SPINE = {"__row": pl.Int64, "user": pl.String, "shop": pl.Int64, "prediction_time": pl.Int64}


def source(*, corrections: bool = False) -> rp.Source:
    return rp.Source("visits", contract=Visits, event_time="at", known_time="known", corrections=corrections)


def event_frame(events: Sequence[Row]) -> pl.DataFrame:
    """Rows as a prepared source has them; times are microseconds."""
    frame = pl.DataFrame(events, schema=EVENTS)
    return frame.with_columns(pl.col(*CLOCKS).cast(TIME), pl.col("__event_time").cast(TIME).alias("at"))


def spine_frame(spine: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(spine, schema=SPINE).with_columns(pl.col("prediction_time").cast(TIME))


def join(view: Any, events: Sequence[Row], spine: Sequence[Row], **how: Any) -> pl.DataFrame:
    """What raypipe answers."""
    return view_features(view, event_frame(events).select(event_columns(view)), spine_frame(spine), **how)


# ---- aggregations, and what a row brings into each ---------------------------------------------

Declared = tuple[rp.definitions.Aggregation, Callable[[Row], Any]]


def number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)  # noqa: PLR0124 (NaN)


def over(column: str) -> Callable[[Row], float | None]:
    return lambda row: number(row[column])


def when(condition: Callable[[Row], bool | None], value: Callable[[Row], Any]) -> Callable[[Row], Any]:
    return lambda row: value(row) if condition(row) else None


def positive(row: Row) -> bool | None:
    return None if row["n"] is None else row["n"] > 0


X, N, FLAG = pl.col("x"), pl.col("n"), pl.col("flag")
DECLARED: dict[str, Declared] = {
    "rows": (rp.count(), lambda row: 1),
    "rows_positive": (rp.count().where(N > 0), when(positive, lambda row: 1)),
    "rows_both": (
        rp.count().where(N > 0).where(FLAG),
        when(lambda row: positive(row) and row["flag"], lambda row: 1),
    ),
    "words": (rp.n_unique("word"), lambda row: row["word"]),
    "days": (rp.n_unique("day"), lambda row: row["day"]),
    "flags": (rp.n_unique("flag"), lambda row: row["flag"]),
    "users": (rp.n_unique("user"), lambda row: row["user"]),
    "times": (rp.n_unique("at"), lambda row: row["__event_time"]),
    "twice": (rp.sum(N * 2), lambda row: None if row["n"] is None else 2.0 * row["n"]),
    "share": (rp.mean("flag"), over("flag")),
    "share_x": (rp.mean(X > 0), lambda row: None if row["x"] is None else float(row["x"] > 0 or row["x"] != row["x"])),
    "last_positive": (rp.last("x").where(N > 0), when(positive, over("x"))),
    "std_positive": (rp.std("x").where(N > 0), when(positive, over("x"))),
    "median_positive": (rp.quantile("x", 0.5).where(N > 0), when(positive, over("x"))),
    "words_positive": (rp.n_unique("word").where(N > 0), when(positive, lambda row: row["word"])),
}
for _column in ("x", "f", "n"):
    for _kind in ("sum", "mean", "var", "std", "min", "max", "first", "last", "n_unique"):
        DECLARED[f"{_kind}_{_column}"] = (getattr(rp, _kind)(_column), over(_column))
    for _q in (0, 0.07, 0.5, 0.9, 1):
        DECLARED[f"q{int(_q * 100)}_{_column}"] = (rp.quantile(_column, _q), over(_column))

AGGREGATIONS = {name: aggregation for name, (aggregation, _) in DECLARED.items()}


# ---- the oracle --------------------------------------------------------------------------------


def total(values: list[float]) -> float | None:
    infinite = {v for v in values if math.isinf(v)}
    if infinite:
        return infinite.pop() if len(infinite) == 1 else None
    return math.fsum(values)


def spread(values: list[float]) -> float | None:
    if len(values) < 2 or any(map(math.isinf, values)):
        return None
    exact = [Fraction(v) for v in values]
    mean = sum(exact) / len(exact)
    return float(sum((v - mean) ** 2 for v in exact) / (len(exact) - 1))


def bucket_middle(value: float) -> float:
    """The middle of the bucket: of 64 between two powers of two."""
    if value == 0 or math.isinf(value):
        return value
    mantissa, exponent = math.frexp(abs(value))
    return math.copysign(math.ldexp(math.floor(mantissa * 128) + 0.5, exponent - 7), value)


def mean(values: list[float]) -> float | None:
    summed = total(values)
    return None if summed is None else summed / len(values)


def root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


OF_NOTHING = {"count": 0, "n_unique": 0, "sum": 0.0}
OF_KIND: dict[str, Callable[[list[Any]], Any]] = {
    "count": len,
    "n_unique": lambda values: len(set(values)),
    "sum": total,
    "mean": mean,
    "var": spread,
    "std": lambda values: root(spread(values)),
    "min": min,
    "max": max,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
}


def aggregate(aggregation: Any, values: list[Any]) -> float | None:
    """An aggregation of the values that rows bring in, oldest first."""
    if not values:
        return OF_NOTHING.get(aggregation.kind)
    if aggregation.kind == "quantile":
        rank = max(math.ceil(Fraction(str(aggregation.q)) * len(values)), 1)
        return bucket_middle(sorted(values)[rank - 1])
    return OF_KIND[aggregation.kind](values)


def as_known(events: Sequence[Row], t: int) -> list[Row]:
    """The table as it was known at `t`: of the rows of one visit the one that became known last."""
    newest: dict[int, Row] = {}
    for row in sorted(events, key=lambda e: e["__known_time"]):
        if row["__known_time"] <= t:
            newest[row["visit"]] = row
    return list(newest.values())


def seen(events: Sequence[Row], asked: Row, entity: Sequence[str]) -> list[Row]:
    """What a row to predict for sees, oldest first."""
    t = asked["prediction_time"]
    mine = [e for e in as_known(events, t) if all(e[c] is not None and e[c] == asked[c] for c in entity)]
    return sorted((e for e in mine if e["__event_time"] <= t), key=lambda e: (e["__event_time"], e["__row"]))


def by_entity(rows: Sequence[Row], entity: Sequence[str]) -> dict[tuple, list[Row]]:
    found: dict[tuple, list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[c] for c in entity), []).append(row)
    return found


def windows(view: rp.FeatureView, events: Sequence[Row], spine: Sequence[Row]) -> dict[str, list[Any]]:
    """Every feature of every row to predict for, by plain loops."""
    found: dict[str, list[Any]] = {name: [] for name in view.features()}
    for asked in spine:
        rows, t = seen(events, asked, view.entity), asked["prediction_time"]
        for window in view.spans():
            tail = (t - window.length_us) // window.hop_us * window.hop_us
            inside = [e for e in rows if e["__event_time"] >= tail]
            for name, aggregation in view.aggregations.items():
                brought = (DECLARED[name][1](row) for row in inside)
                values = [v for v in brought if v is not None]
                found[f"{view.name}_{window.name}_{name}"].append(aggregate(aggregation, values))
    return found


def latest(view: rp.LatestView, events: Sequence[Row], spine: Sequence[Row]) -> dict[str, list[Any]]:
    """Every column of the newest row that each row to predict for sees."""
    found: dict[str, list[Any]] = {name: [] for name in view.features()}
    for asked in spine:
        rows, age = seen(events, asked, view.entity), view.max_age_us
        newest = rows[-1] if rows else None
        if newest and age is not None and newest["__event_time"] < asked["prediction_time"] - age:
            newest = None
        for column in view.columns:
            found[f"{view.name}_{column}"].append(newest and newest[column])
    return found


def answers(view: Any, events: Sequence[Row], spine: Sequence[Row]) -> dict[str, list[Any]]:
    return (windows if isinstance(view, rp.FeatureView) else latest)(view, events, spine)


def assert_answers(got: pl.DataFrame, expected: dict[str, list[Any]]) -> None:
    """Equal to the bit but for a zero's sign; a variance within 1e-12 of itself."""
    assert got.columns == ["__row", *expected]
    for name, right in expected.items():
        loose = "_var_" in name or "_std_" in name
        for row, (mine, value) in enumerate(zip(got[name].to_list(), right, strict=True)):
            close = mine is not None and value is not None and loose and math.isclose(mine, value, rel_tol=1e-12)
            nan = mine != mine and value != value  # noqa: PLR0124 (a latest value may be NaN)
            assert mine == value or close or nan, f"{name}, row {row}: got {mine!r}, expected {value!r}"


# ---- random histories --------------------------------------------------------------------------

SPECIAL = [None, math.nan, 0.0, -0.0, 0.1, -0.3, 1e18, -1e18, 1e-18, 1e9 + 0.1, 7.0]


def figure(dice: random.Random, *, infinite: bool) -> float | None:
    """A value: half of them special, the others of any size."""
    if infinite and dice.random() < 0.2:
        return dice.choice([math.inf, -math.inf])
    return dice.choice(SPECIAL) if dice.random() < 0.5 else dice.uniform(-1, 1) * 10.0 ** dice.randint(-6, 9)


def fields(dice: random.Random, *, infinite: bool) -> Row:
    small = figure(dice, infinite=infinite)
    return {
        "x": figure(dice, infinite=infinite),
        "f": None if small is None else pl.Series([small], dtype=pl.Float32)[0],
        "n": dice.choice([None, 0, 3, -8, 2**40, dice.randint(-99, 99)]),
        "flag": dice.choice([None, True, False]),
        "word": dice.choice([None, "", "a", "b", "A", "long " * 9]),
        "day": dice.choice([None, date(1969, 12, 31), date(2014, 1, 3)]),
    }


def world(
    seed: int, *, hop: int = 5 * MINUTE, entities: int = 12, rows: int = 14, corrected: bool = False
) -> tuple[list[Row], list[Row]]:
    """Events of several entities in any order, and rows to predict for. Times lie on the hop or a microsecond beside
    it; rows are late, early, double or without an entity; with `corrected`, sent again with other values."""
    dice = random.Random(seed)
    start = NOON // hop * hop

    def moment(last: int = 12) -> int:
        return start + dice.randint(0, last) * hop + dice.choice([0, 0, 0, -1, 1])

    events, spine = [], []
    for entity in range(entities):
        key = {"user": dice.choice(["ann", "bob", "Ann", "", None]), "shop": dice.choice([entity, entity // 2, None])}
        infinite = dice.random() < 0.25
        for _ in range(dice.randint(0, rows)):
            at = moment()
            known = dice.choice([at, at, moment(), moment(24), at - hop, at + 30 * hop])
            versions = dice.choice([1, 1, 2, 3]) if corrected else 1
            visit, times = len(events), sorted({known, *(moment(24) for _ in range(versions - 1))})
            for known_at, replaced in zip(times, [*times[1:], None], strict=True):
                moved = corrected and dice.random() < 0.3
                events.append(
                    {
                        **fields(dice, infinite=infinite),
                        **key,
                        **({"shop": dice.randrange(entities), "user": "ann"} if moved else {}),
                        "visit": visit,
                        "__event_time": moment() if moved else at,
                        "__known_time": known_at,
                        "__replaced_at": replaced,
                    }
                )
        spine += [{**key, "prediction_time": moment(26)} for _ in range(dice.randint(0, 6))]
    numbers = dice.sample(range(len(events)), len(events))
    events = [{**event, "__row": number} for event, number in zip(events, numbers, strict=True)]
    dice.shuffle(events)
    dice.shuffle(spine)
    return events, [{**asked, "__row": number} for number, asked in enumerate(spine)]


def visit(at: int, known: int | None = None, **changes: Any) -> Row:
    """A row of user 'ann' in shop 1; times in microseconds."""
    row = {"visit": 0, "user": "ann", "shop": 1, "x": 1.0, "f": 1.0, "n": 1, "flag": True, "word": "a", "day": None}
    clocks = {"__event_time": at, "__known_time": at if known is None else known, "__replaced_at": None}
    return row | clocks | {"__row": 0} | changes


def ask(t: int, **changes: Any) -> Row:
    return {"__row": 0, "user": "ann", "shop": 1, "prediction_time": t} | changes


@pytest.fixture(scope="session")
def pit() -> SimpleNamespace:
    """Everything above."""
    return SimpleNamespace(**{name: thing for name, thing in globals().items() if not name.startswith("_")})

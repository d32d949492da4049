"""Compiled expressions against Polars, value by value and to the bit, on random rows with the edges of every type."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.definitions.expressions import to_json
from raypipe.features.row_expressions import Scope, compile_expression
from raypipe.features.row_values import FallBackError, UnsupportedError
from tests.cases import MORE

TIME = pl.Datetime("us", "UTC")
SCHEMA = {
    "a": pl.Float64(), "b": pl.Float64(), "f": pl.Float32(), "g": pl.Float32(), "i": pl.Int64(), "j": pl.Int64(),
    "k": pl.Int32(), "h": pl.Int8(), "u": pl.UInt8(), "w": pl.UInt64(), "p": pl.Boolean(), "q": pl.Boolean(),
    "s": pl.String(), "v": pl.String(), "t": TIME, "r": TIME, "d": pl.Date(),
}  # fmt: skip
SCOPE = Scope(SCHEMA)


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**6


# The hours around New York's clock changes, leap days, the epoch and both ends of the request contract.
MOMENTS = [
    us(t) + step
    for t in ("2013-03-10T07:00", "2013-11-03T06:00", "2012-02-29T23:59", "2100-02-28T23:59", "1970-01-01", "1678-01-01", "2261-12-31T23:59")
    for step in (-1, 0, 1, 3_599_999_999)
]  # fmt: skip
FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    0.1,
    1e308,
    -1e308,
    5e-324,
    math.inf,
    -math.inf,
    math.nan,
    2.0**53,
    2.0**53 + 2,
    1e18,
    3.0,
]
VALUES: dict[pl.DataType, st.SearchStrategy] = {
    pl.Float64(): st.sampled_from(FLOATS) | st.floats(),
    pl.Float32(): st.sampled_from([0.0, -0.0, 0.5, math.inf, math.nan, 2.0**24]) | st.floats(width=32),
    pl.Boolean(): st.booleans(),
    pl.String(): st.sampled_from(["", "a", "A", "ab", "abc", "é", "ﬃ", "ẞ", "\U0001d538", "Σς", "a\n"])
    | st.text(max_size=4),
    TIME: st.sampled_from(MOMENTS) | st.integers(us("1678-01-01"), us("2261-12-31")),
    pl.Date(): st.integers(us("1678-01-01") // 86_400_000_000, us("2261-12-31") // 86_400_000_000),
}


def values(dtype: pl.DataType) -> st.SearchStrategy:
    if dtype in VALUES:
        found = VALUES[dtype]
    else:
        low, high = pl.select(low=dtype.min(), high=dtype.max()).row(0)
        found = st.sampled_from([low, high, 0, 1, 2, 3, min(high, 2**53 + 1)]) | st.integers(low, high)
    return st.none() | found


ROWS = st.lists(st.fixed_dictionaries({n: values(t) for n, t in SCHEMA.items()}), min_size=1, max_size=30)
c = pl.col
NEW_YORK, KOLKATA = "America/New_York", "Asia/Kolkata"
EXPRESSIONS = {
    "single and int": c("f") * c("i"), "single and int32": c("f") + c("k"), "single and tiny": c("f") - c("h"), "single and flag sum": c("f") + c("u"),
    "log": c("a").log(), "log10": c("a").log10(), "log2": c("a").log(2), "log1p": c("a").log1p(), "exp": c("a").exp(), "sine": c("a").sin(), "cosine": c("a").cos(),
    "ceiling": c("a").ceil(), "square": c("a") ** 2, "starts": c("s").str.starts_with("a"), "ends": c("s").str.ends_with("b"), "contains": c("s").str.contains("b", literal=True),
    "column": c("a"), "alias": c("s").alias("z"), "literal": pl.lit(3), "null": pl.lit(None), "text": pl.lit("x"),
    "typed literal": pl.lit(3, pl.Int64), "plus": c("a") + c("b"), "minus": c("a") - c("b"), "times": c("a") * c("b"), "over": c("a") / c("b"),
    "floor over": c("a") // c("b"), "modulo": c("a") % c("b"), "plus one": c("a") + 1, "half": c("a") / 2, "tenth": c("i") * 0.1,
    "ints over": c("i") / c("j"), "ints floor over": c("i") // c("j"), "ints modulo": c("i") % c("j"), "ints plus": c("i") + c("j"),
    "ints times": c("i") * c("j"), "ints minus": c("i") - c("j"), "narrow plus wide": c("k") + c("i"), "tiny times": c("h") * 3,
    "tiny minus": c("u") - 1, "unsigned plus": c("w") + 1, "int and float": c("i") + c("a"), "int32 and float": c("k") * c("a"), "unsigned and float": c("w") - c("a"),
    "single plus": c("f") + c("g"), "single times": c("f") * c("g"), "single over": c("f") / c("g"), "single plus half": c("f") + 0.5,
    "single and double": c("f") + c("a"), "by zero": c("i") // 0, "sixtieth": c("i") // 60, "modulo 7": c("i") % 7,
    "equal": c("a") == c("b"), "unequal": c("a") != c("b"), "less": c("a") < c("b"), "no more": c("a") <= c("b"), "more": c("a") > c("b"), "no less": c("a") >= c("b"),
    "int equal": c("i") == c("j"), "int less": c("i") < c("k"), "tiny less": c("u") < c("i"), "int over literal": c("i") > 3, "int over real": c("i") > 1.5,
    "int and double": c("i") >= c("a"), "double over literal": c("a") > 0, "single over literal": c("f") > 0.5, "single less": c("f") < c("g"),
    "text equal": c("s") == "a", "text less": c("s") < c("v"), "flag equal": c("p") == c("q"), "time less": c("t") < c("r"),
    "time after": c("t") > pl.lit(datetime(2013, 3, 10, 7, tzinfo=UTC)),
    "and": c("p") & c("q"), "or": c("p") | c("q"), "xor": c("p") ^ c("q"), "not": ~c("p"), "both": (c("a") > 1) & c("s").is_null(),
    "is null": c("a").is_null(), "is not null": c("s").is_not_null(), "is nan": c("a").is_nan(), "is not nan": c("f").is_not_nan(),
    "is finite": c("a").is_finite(), "is infinite": c("a").is_infinite(), "fill null": c("a").fill_null(0), "fill int": c("i").fill_null(-1),
    "fill text": c("s").fill_null("none"), "fill column": c("a").fill_null(c("b")), "coalesce": pl.coalesce("i", "k"), "coalesce mixed": pl.coalesce("k", "a"),
    "fill nan": c("a").fill_nan(None), "fill nan value": c("a").fill_nan(0.0),
    "abs": c("a").abs(), "abs int": c("i").abs(), "negate": -c("a"), "floor": c("a").floor(), "sqrt": c("a").sqrt(), "clip": c("a").clip(-1, 2),
    "between": c("a").is_between(0, 3), "between closed": c("i").is_between(0, 3, closed="none"), "between columns": c("a").is_between(c("b"), 7, closed="left"),
    "in text": c("s").is_in(["a", "ab"]), "in ints": c("i").is_in([1, 2, 2**53 + 1]), "in ints32": c("k").is_in([1, 2]),
    "when": pl.when(c("a") > 1).then(c("b")).otherwise(c("a")), "when text": pl.when(c("p")).then(pl.lit("x")).otherwise(c("s")),
    "when null": pl.when(c("p")).then(c("i")), "when mixed": pl.when(c("p")).then(c("i")).otherwise(c("a")), "when ints": pl.when(c("p")).then(1).otherwise(0),
    "when twice": pl.when(c("p")).then(1.5).when(c("q")).then(c("a")).otherwise(None),
    "int to float": c("i").cast(pl.Float64), "int to narrow": c("i").cast(pl.Int32), "int to unsigned": c("i").cast(pl.UInt8, strict=False), "flag to int": c("p").cast(pl.Int8),
    "flag to float": c("p").cast(pl.Float64), "single to double": c("f").cast(pl.Float64), "unsigned to float": c("w").cast(pl.Float64), "same": c("a").cast(pl.Float64),
    "length": c("s").str.len_bytes(), "characters": c("s").str.len_chars(), "lower": c("s").str.to_lowercase(), "upper": c("s").str.to_uppercase(),
    "hour": c("t").dt.hour(), "minute": c("t").dt.minute(), "second": c("t").dt.second(), "day": c("t").dt.day(), "weekday": c("t").dt.weekday(),
    "month": c("t").dt.month(), "year": c("t").dt.year(), "ordinal": c("t").dt.ordinal_day(), "week": c("t").dt.week(), "quarter": c("t").dt.quarter(),
    "date weekday": c("d").dt.weekday(), "date month": c("d").dt.month(), "date year": c("d").dt.year(), "date ordinal": c("d").dt.ordinal_day(),
    "local hour": c("t").dt.convert_time_zone(NEW_YORK).dt.hour(), "local minute": c("t").dt.convert_time_zone(KOLKATA).dt.minute(),
    "local weekday": c("t").dt.convert_time_zone(NEW_YORK).dt.weekday(), "local day": c("t").dt.convert_time_zone("Pacific/Apia").dt.ordinal_day(),
    "minute of day": c("t").dt.convert_time_zone(NEW_YORK).dt.hour().cast(pl.Int32) * 60 + c("t").dt.convert_time_zone(NEW_YORK).dt.minute(),
    "two hours before": c("t").dt.offset_by("-2h"), "a day and a half": c("t").dt.offset_by("1d12h"), "epoch": c("t").dt.epoch("us"),
    "plus duration": c("t") + pl.duration(minutes="h"), "plus more": c("t") + pl.duration(hours=c("h"), seconds=5), "difference": c("t") - c("r"),
    "hours between": (c("t") - c("r")).dt.total_hours(), "seconds between": (c("t") - c("r")).dt.total_seconds(), "days between": (c("t") - c("r")).dt.total_days(),
    "ratio": pl.when((c("a") / c("b")).cast(pl.Float64).is_finite()).then((c("a") / c("b")).cast(pl.Float64)),
}  # fmt: skip


def same(one: object, other: object) -> bool:
    """Bits and all: -0.0 is not 0.0, and a flag is no number."""
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


def polars_values(expression: pl.Expr, rows: list[dict]) -> list:
    frame = pl.DataFrame({
        name: pl.Series([row[name] for row in rows], dtype=pl.Int64 if t == TIME else pl.Int32 if t == pl.Date() else t).cast(t)
        for name, t in SCHEMA.items()
    })  # fmt: skip
    return frame.select(expression.alias("x"))["x"].to_physical().to_list() * (
        len(rows) if expression.meta.is_literal() else 1
    )


@pytest.mark.parametrize("name", EXPRESSIONS)
@settings(max_examples=3 * MORE)
@given(rows=ROWS)
def test_a_compiled_expression_gives_polars_values(name, rows):
    expression = EXPRESSIONS[name]
    compiled = compile_expression(to_json(expression, where=""), SCOPE)
    kept, found = [], []
    for row in rows:
        try:
            found.append(compiled.call([row[n] for n in SCHEMA]))
        except FallBackError:
            continue
        kept.append(row)
    expected = polars_values(expression, kept) if kept else []
    assert all(same(one, other) for one, other in zip(found, expected, strict=True)), list(
        zip(found, expected, kept, strict=True)
    )


PLAIN = {n: {pl.Boolean(): True, pl.String(): "ab", TIME: us("2024-05-06T07:08")}.get(t, 2) for n, t in SCHEMA.items()}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_plain_row_is_computed(name):
    """What the test above leaves to Polars is the exception."""
    row = {n: float(v) if SCHEMA[n].is_float() else v for n, v in PLAIN.items()}
    compiled = compile_expression(to_json(EXPRESSIONS[name], where=""), SCOPE)
    assert same(compiled.call(list(row.values())), polars_values(EXPRESSIONS[name], [row])[0])


@pytest.mark.parametrize(
    "expression",
    [
        c("a").rank(), c("s").str.contains("a.b"), c("a").round(2), c("i").cast(pl.String), c("s").cast(pl.Int64), c("a").cast(pl.Int64), c("t").dt.truncate("1h"),
        c("t").dt.offset_by("1mo"), c("i").is_in([1, None]), c("w") > c("i"), c("f") > 0.1, pl.max_horizontal("a", "b"), c("a") ** 3, c("t").dt.epoch("ns"), c("t").dt.replace_time_zone("Asia/Tokyo").dt.hour(),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_sure_to_be_the_same_is_not_compiled(expression):
    with pytest.raises(UnsupportedError):
        compile_expression(to_json(expression, where=""), SCOPE)

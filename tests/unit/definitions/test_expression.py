from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

from raypipe.definitions.expressions import check_row_by_row, from_json, roots, to_json
from raypipe.errors import BundleError, DefinitionError


class Payload:
    """Unpickling one runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, *values):
        return values[0]

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


PYTHON = {
    "map_elements": lambda f: pl.col("x").map_elements(f, return_dtype=pl.Int64),
    "map_batches": lambda f: pl.col("x").map_batches(f, return_dtype=pl.Int64),
    "pl.map_batches": lambda f: pl.map_batches(["x", "y"], f, return_dtype=pl.Int64),
    "pl.map_groups": lambda f: pl.map_groups(["x", "y"], f, return_dtype=pl.Int64, returns_scalar=True),
    "name.map": pl.col("x").name.map,
    "list.eval": lambda f: pl.col("x").list.eval(pl.element().map_elements(f, return_dtype=pl.Int64)),
    "inside": lambda f: pl.when(pl.col("x") > 1).then(pl.col("y").map_batches(f, return_dtype=pl.Int64)).otherwise(0),
    "rolling_map": lambda f: pl.col("x").rolling_map(f, 3),
    "fold": lambda f: pl.fold(pl.lit(0), f, [pl.col("x"), pl.col("y")]),
    "reduce": lambda f: pl.reduce(f, [pl.col("x"), pl.col("y")]),
}


@pytest.mark.parametrize("name", PYTHON)
def test_a_python_function_is_refused_when_declared(name, tmp_path):
    with pytest.raises(DefinitionError, match="Python function") as caught:
        to_json(PYTHON[name](Payload(tmp_path / "ran")), where="RequestView('r')")
    assert caught.value.where == "RequestView('r')"


@pytest.mark.parametrize("name", PYTHON)
def test_a_python_function_is_never_loaded(name, tmp_path):
    stored = json.loads(PYTHON[name](Payload(tmp_path / "ran")).meta.serialize(format="json"))
    with pytest.raises(BundleError):
        from_json(stored, where="bundle")
    assert not (tmp_path / "ran").exists()


def native_plugin(folder: Path) -> pl.Expr:
    library = folder / "library.so"
    library.write_bytes(b"")
    return pl.plugins.register_plugin_function(
        plugin_path=library, function_name="f", args=[pl.col("x")], is_elementwise=True
    )


def test_a_native_plugin_is_refused_when_declared(tmp_path):
    with pytest.raises(DefinitionError):
        to_json(native_plugin(tmp_path), where="here")


def test_a_native_plugin_is_never_loaded(tmp_path):
    with pytest.raises(BundleError):
        from_json(json.loads(native_plugin(tmp_path).meta.serialize(format="json")), where="bundle")


FRAME = pl.DataFrame(
    {"x": [1, 2, None], "s": ["a", "b", None], "at": pl.Series([0, 1, 2], dtype=pl.Datetime("us", "UTC"))}
)


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("x") * 2 + 1,
        pl.col("s").is_in(["a", "c"]),
        pl.col("s").replace_strict({"a": 1}, default=0),
        pl.when(pl.col("x") > 1).then(pl.lit("big")).otherwise(pl.col("s")),
        pl.col("at").dt.offset_by("-2h").dt.convert_time_zone("America/New_York").dt.hour(),
        pl.coalesce("x", pl.lit(9)),
        pl.col("s").str.to_uppercase().fill_null(""),
    ],
)
def test_own_operations_survive_storage(expression, same):
    stored = json.loads(json.dumps(to_json(expression, where="here")))
    same(
        FRAME.select(from_json(stored, where="here").alias("v"))["v"].to_list(),
        FRAME.select(expression.alias("v"))["v"].to_list(),
    )


def test_roots_are_the_columns_read():
    assert roots(pl.when(pl.col("b") > 1).then(pl.col("a")).otherwise(pl.col("b"))) == ["a", "b"]


@pytest.mark.parametrize("stored", [{"Nope": 1}, {}, [], None, "Nope"])
def test_what_is_no_expression_is_not_loaded(stored):
    with pytest.raises(BundleError):
        from_json(stored, where="bundle")


# ---- a value follows from its own row ----------------------------------------------------------

TABLE = pl.DataFrame(
    {
        "x": [3.0, 1.0, None, 2.0, 5.0],
        "n": [3, 1, 7, 7, 2],
        "s": ["bc", "ab", None, "ac", "cc"],
        "b": [True, False, None, True, True],
        "at": pl.Series([1, 5, 9, 9, 22], dtype=pl.Datetime("us", "UTC")),
        "many": [[1, 2], [3], None, [], [5, 4]],
    }
)
X, N, S, B, AT, MANY = (pl.col(name) for name in TABLE.columns)

MIXING = {
    "agg": X - X.mean(),
    "over": X.sum().over("b"),
    "len": N + pl.len(),
    "count": N + X.count(),
    "last": X.last(),
    "quantile": X - X.quantile(0.5),
    "product": N.product(),
    "cum_sum": N.cum_sum(),
    "shift": X.shift(1),
    "diff": X.diff(),
    "rank": X.rank(),
    "sort": X.sort(),
    "reverse": X.reverse(),
    "gather": X.gather([0] * 5),
    "get": X.get(0),
    "fill forward": X.fill_null(strategy="forward"),
    "fill mean": X.fill_null(strategy="mean"),
    "interpolate": X.interpolate(),
    "rolling": N.rolling_mean(2),
    "rolling by time": N.sum().rolling("at", period="9us"),
    "ewm by time": N.ewm_mean_by("at", half_life="1us"),
    "any": B.any(ignore_nulls=True),
    "has nulls": X.has_nulls(),
    "null count": X.null_count(),
    "is first": N.is_first_distinct(),
    "is duplicated": N.is_duplicated(),
    "is sorted": N.is_sorted(),
    "index of": N.index_of(7),
    "search sorted": N.sort().search_sorted(N),
    "bits of all": N.bitwise_xor(),
    "join of all": S.str.join(),
    "mode": N.mode().first(),
    "row numbers": N * 0 + pl.int_range(pl.len()),
    "literal column": X + pl.Series([1, 2, 3, 4, 5]),
    "inside": pl.when(B).then(X.max()).otherwise(0),
}

ROW_WISE = {
    "arithmetic": (X + N) * 2 // 3,
    "compare": X > N,
    "when": pl.when(B).then(X).otherwise(-N),
    "coalesce": pl.coalesce(X, N),
    "fill_null": X.fill_null(0),
    "is_in": S.is_in(["ab", "cc"]),
    "is_in many": N.is_in(list(range(40))),
    "replace": S.replace_strict({"ab": 1}, default=0),
    "clip": X.clip(1, N),
    "horizontal": pl.max_horizontal(X, N) + pl.sum_horizontal(X, N),
    "cast": X.cast(pl.String),
    "log": (N + 1).log(),
    "str.slice": S.str.slice(0, 1),
    "str.head": S.str.head(1),
    "str.reverse": S.str.reverse(),
    "str.contains": S.str.contains("a") | S.str.starts_with("c"),
    "str.len": S.str.len_chars(),
    "str.date": S.str.to_date("%F", strict=False).is_null(),
    "list.sum": MANY.list.sum(),
    "list.sort": MANY.list.sort().list.first(),
    "dt": AT.dt.convert_time_zone("America/New_York").dt.hour().cast(pl.Int32) * 60 + AT.dt.weekday(),
    "duration": AT + pl.duration(minutes=N),
    "literal": pl.lit("Agg"),
    "column called Agg": X.alias("Agg") + N.alias("Len"),
}


def alone(expression: pl.Expr) -> list[object]:
    """The value of each row when there is no other."""
    return [TABLE[at : at + 1].select(v=expression)["v"].to_list() for at in range(TABLE.height)]


def together(expression: pl.Expr) -> list[object]:
    return [[value] for value in TABLE.with_columns(v=expression)["v"]]


@pytest.mark.parametrize("name", MIXING)
def test_a_value_of_other_rows_is_refused(name):
    with pytest.raises(DefinitionError):
        check_row_by_row(MIXING[name], where="here")


@pytest.mark.parametrize("name", sorted(MIXING.keys() - {"literal column"}))
def test_those_do_take_other_rows_into_account(name):
    assert alone(MIXING[name]) != together(MIXING[name])


@pytest.mark.parametrize("name", ROW_WISE)
def test_a_value_of_its_own_row_is_accepted(name):
    check_row_by_row(ROW_WISE[name], where="here")
    assert alone(ROW_WISE[name]) == together(ROW_WISE[name])

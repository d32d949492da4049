from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

from raypipe.definitions.expressions import from_json, roots, to_json
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

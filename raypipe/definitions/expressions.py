"""Polars expressions as data: the columns they read, and a JSON form without any code in it.

A Polars expression can carry a pickled Python function. Such an expression is refused when it is
declared and again before it is loaded from storage, so that no storage can run code here.
"""

from __future__ import annotations

import io
import json
from typing import Any

import polars as pl

from raypipe.errors import BundleError, DefinitionError

_PYTHON_NODES = {"AnonymousFunction", "AnonymousAgg", "PythonUdf", "PythonScan", "RenameAlias"}
_PICKLE_MARK = list(b"PLPYFN")


def roots(expression: pl.Expr) -> list[str]:
    """Names of the columns that `expression` reads, sorted."""
    return sorted(set(expression.meta.root_names()))


def to_json(expression: pl.Expr, *, where: str) -> Any:
    """`expression` as a JSON document. Raises DefinitionError if it holds a Python function."""
    document = json.loads(expression.meta.serialize(format="json"))
    if _holds_python(document):
        raise DefinitionError(
            "an expression calls a Python function",
            where=where,
            expected="Polars' own operations, which run the same in training and serving",
            hint="write it without map_elements, map_batches or name.map",
        )
    return document


def from_json(document: Any, *, where: str) -> pl.Expr:
    """The expression that `to_json` wrote. Raises BundleError if the document holds a Python function."""
    if _holds_python(document):
        raise BundleError("a stored expression holds a Python function; it is not loaded", where=where)
    return pl.Expr.deserialize(io.StringIO(json.dumps(document)), format="json")


def _holds_python(document: Any) -> bool:
    if isinstance(document, dict):
        return any(key in _PYTHON_NODES or _holds_python(value) for key, value in document.items())
    if isinstance(document, list):
        return document[: len(_PICKLE_MARK)] == _PICKLE_MARK or any(_holds_python(value) for value in document)
    return False

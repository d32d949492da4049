"""Polars expressions as data: the columns they read, and a JSON form without any code in it.

A Polars expression can carry a pickled Python function or name a native library. Such an expression is refused when
it is declared and again before it is loaded from storage, so that no storage can run code here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from raypipe.errors import BundleError, DefinitionError

# Nodes of Polars' JSON form that carry a Python function (pickled) or call a library.
_CODE_NODES = {
    "AnonymousFunction",
    "AnonymousAgg",
    "PythonUdf",
    "PythonScan",
    "RenameAlias",
    "FoldHorizontal",
    "ReduceHorizontal",
    "CumReduceHorizontal",
    "CumFoldHorizontal",
    "Map",
    "FfiPlugin",
    "SubPlan",
}
_BYTES = 16  # so many small integers in a row outside of a literal are taken for a pickle


def roots(expression: pl.Expr) -> list[str]:
    """Names of the columns that `expression` reads, sorted."""
    return sorted(set(expression.meta.root_names()))


def to_json(expression: pl.Expr, *, where: str) -> Any:
    """`expression` as a JSON document. Raises DefinitionError if it holds a Python function."""
    document = json.loads(expression.meta.serialize(format="json"))
    if _holds_code(document):
        raise DefinitionError(
            "an expression calls a Python function or a plugin",
            where=where,
            expected="Polars' own operations, which run the same in training and serving",
            hint="write it without map_elements, map_batches, fold, rolling_map, name.map or a plugin",
        )
    return document


def check_row_by_row(expression: pl.Expr, *, where: str) -> None:
    """Raise DefinitionError unless the value of a row follows from that row alone, from columns that are named.

    Anything else would see rows that are not known yet, or other rows in another plan or in a request.
    """
    document = to_json(expression, where=where)
    if _found(document, {"Selector"}):
        raise DefinitionError(
            "an expression selects columns without naming each", where=where, expected='pl.col("name"), one at a time'
        )
    mixing = _mixes_rows(expression)
    if mixing:
        raise DefinitionError(
            "an expression mixes rows",
            where=where,
            got=mixing,
            expected="a value that follows from its own row",
            hint="use an aggregation of a FeatureView for what depends on other rows",
        )


def _mixes_rows(expression: pl.Expr) -> str | None:
    """The first part of `expression` whose value for a row may depend on other rows, as Polars prints it.

    Polars' answer for a whole expression (`is_row_separable`) is about its root alone, so every node is asked.
    """
    pending = [expression]
    while pending:
        part = pending.pop()
        document = json.loads(part.meta.serialize(format="json"))
        if isinstance(document, dict) and "Column" in document:
            continue
        if isinstance(document, dict) and "Literal" in document:
            literal = document["Literal"]
            if isinstance(literal, dict) and "Series" in literal:
                return str(part)
            continue
        if not is_row_by_row(part):
            return str(part)
        pending += part.meta.pop()
    return None


def is_row_by_row(part: pl.Expr) -> bool:
    """Whether the root of an expression takes each row's value from that row's inputs; not if Polars cannot say."""
    try:
        return bool(part.meta.is_row_separable())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False


def from_json(document: Any, *, where: str) -> pl.Expr:
    """The expression that `to_json` wrote. Raises BundleError if the document holds code."""
    if _holds_code(document):
        raise BundleError("a stored expression holds a Python function or a plugin; it is not loaded", where=where)
    try:
        return pl.Expr.deserialize(io.StringIO(json.dumps(document)), format="json")
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise BundleError("a stored expression is of another version of Polars", where=where, got=error) from None


def _holds_code(document: Any) -> bool:
    return _found(document, _CODE_NODES) is not None or _holds_bytes(document)


def _found(document: Any, nodes: set[str]) -> str | None:
    """The first of `nodes` in the document. The name of a column and a literal are no nodes."""
    if isinstance(document, str):
        return document if document in nodes else None
    if isinstance(document, list):
        return next((found for part in document if (found := _found(part, nodes))), None)
    if not isinstance(document, dict):
        return None
    for key, value in _nodes(document):
        found = key if key in nodes else _found(value, nodes)
        if found:
            return found
    return None


def _nodes(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values without what a user named or wrote: columns, aliases, literals."""
    for key, value in document.items():
        if key == "Alias" and isinstance(value, list):
            yield key, value[:1]
        elif key not in ("Column", "Literal"):
            yield key, value


def _holds_bytes(document: Any) -> bool:
    """Whether there is a run of bytes outside of a literal: a pickle, whatever the node that carries it."""
    if isinstance(document, list):
        return (len(document) >= _BYTES and all(isinstance(v, int) for v in document)) or any(
            map(_holds_bytes, document)
        )
    return isinstance(document, dict) and any(_holds_bytes(value) for _, value in _nodes(document))

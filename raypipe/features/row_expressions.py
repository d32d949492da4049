"""Polars expressions compiled for one row: from their JSON form to functions of plain values.

Polars takes tens of microseconds for an expression of one row, whatever it computes. A compiled one takes less than
one, and gives the same value: it is compiled only where that is known, or not at all (UnsupportedError), and leaves the
rows to Polars of which it is not (FallBackError). `row_plan` proves a plan against Polars before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from raypipe.definitions.expressions import from_json
from raypipe.features.row_functions import function
from raypipe.features.row_operators import binary
from raypipe.features.row_values import Compiled, Row, UnsupportedError, converted, within

_FUNCTION_GROUPS = ("Boolean", "TemporalExpr", "StringExpr", "Pow", "Trigonometry")


class Scope:
    """The columns that expressions may read: where each stands in a row, and its type."""

    def __init__(self, schema: Mapping[str, pl.DataType]) -> None:
        self.schema = pl.Schema(schema)
        self.places = {name: place for place, name in enumerate(self.schema)}

    def dtype(self, document: Any) -> pl.DataType:
        """What Polars makes of an expression, given in its JSON form."""
        column = from_json(document, where="serving.json").alias("value")
        return pl.LazyFrame(schema=self.schema).select(column).collect_schema()["value"]


class Node(NamedTuple):
    """The content of an expression's outermost node; the whole expression; and what it may read."""

    content: Any
    document: Any
    scope: Scope

    @property
    def dtype(self) -> pl.DataType:
        return self.scope.dtype(self.document)

    def part(self, document: Any) -> Compiled:
        return compile_expression(document, self.scope)


def compile_expression(document: Any, scope: Scope) -> Compiled:
    """A function of a row of the scope's columns. Raises UnsupportedError that names the part that is not compiled."""
    (kind, content), *more = document.items()
    if more or kind not in _NODES:
        raise UnsupportedError(f"{kind} is not compiled")
    return _NODES[kind](Node(content, document, scope))


def _column(node: Node) -> Compiled:
    place = node.scope.places[node.content]
    return Compiled(node.scope.schema[node.content], lambda row: row[place])


def _alias(node: Node) -> Compiled:
    return node.part(node.content[0])


def _literal(node: Node) -> Compiled:
    value = pl.select(from_json(node.document, where="serving.json").alias("value"))["value"]
    (plain,) = value.to_physical().to_list()
    if isinstance(plain, list):
        if None in plain:
            raise UnsupportedError("a list with null is not compiled")
        return Compiled(value.dtype, lambda row: plain, frozenset(plain))
    return Compiled(value.dtype, lambda row: plain, plain, untyped="Dyn" in node.content)


def _binary(node: Node) -> Compiled:
    left, right = (node.part(node.content[side]) for side in ("left", "right"))
    return binary(node.content["op"], left, right, node.dtype)


def _cast(node: Node) -> Compiled:
    given, dtype = node.part(node.content["expr"]), node.dtype
    if given.dtype == pl.Boolean and dtype.is_numeric():
        kind = float if dtype.is_float() else int
        return Compiled(dtype, lambda row: None if (value := given.call(row)) is None else kind(value))
    if given.dtype.is_integer() and dtype.is_integer():
        return Compiled(dtype, within(dtype, given.call))
    return Compiled(dtype, converted(given, dtype))


def _ternary(node: Node) -> Compiled:
    dtype, condition = node.dtype, node.part(node.content["predicate"]).call
    truthy, falsy = (converted(node.part(node.content[side]), dtype) for side in ("truthy", "falsy"))

    def call(row: Row) -> Any:
        yes, no = truthy(row), falsy(row)  # both, as Polars does: an overflow in one is an error in either case
        return yes if condition(row) else no

    return Compiled(dtype, call)


def _function(node: Node) -> Compiled:
    name, options = _named(node.content["function"])
    if name in _FUNCTION_GROUPS:
        name, options = _named(options)
    return function(name, options, [node.part(each) for each in node.content["input"]], node.dtype)


def _named(node: Any) -> tuple[str, Any]:
    """A node of Polars' JSON: a name, or a name with options."""
    if isinstance(node, str):
        return node, None
    ((name, options),) = node.items()
    return name, options


_NODES = {
    "Column": _column,
    "Alias": _alias,
    "Literal": _literal,
    "BinaryExpr": _binary,
    "Cast": _cast,
    "Ternary": _ternary,
    "Function": _function,
}

"""What changed between the columns of two snapshots, in words, and whether it may go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

# Column name to {"type": Arrow's name of the type, "nullable": whether it may hold nulls}.
Schema = Mapping[str, Mapping[str, Any]]


def schema_changes(old: Schema, new: Schema) -> list[str]:
    """Every column that was added, removed or changed its type or nullability, a sentence each; old order, then new."""
    return [change.words for change in _changes(old, new)]


def refused_changes(old: Schema, new: Schema, contract: AbstractSet[str]) -> list[str]:
    """Those of `schema_changes` that a source must not meet unasked: a column that the contract reads is gone, has
    another type, or may now be null. What is added, or is no column of the contract, changes no value."""
    return [change.words for change in _changes(old, new) if change.matters and change.column in contract]


@dataclass(frozen=True)
class _Change:
    column: str
    words: str
    matters: bool


def _changes(old: Schema, new: Schema) -> Iterator[_Change]:
    for name, was in old.items():
        now = new.get(name)
        if now is None:
            yield _Change(name, f"column '{name}' was removed", matters=True)
            continue
        if now["type"] != was["type"]:
            yield _Change(name, f"column '{name}' changed its type from {was['type']} to {now['type']}", matters=True)
        if now["nullable"] and not was["nullable"]:
            yield _Change(name, f"column '{name}' can now be null", matters=True)
        if was["nullable"] and not now["nullable"]:
            yield _Change(name, f"column '{name}' can no longer be null", matters=False)
    for name in new:
        if name not in old:
            yield _Change(name, f"column '{name}' was added: {new[name]['type']}", matters=False)

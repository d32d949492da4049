"""A trace and a score in words, for people."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from raypipe.data.digest import short

if TYPE_CHECKING:
    from rich.console import RenderableType

    from raypipe.registry.trace import Node, State

SHOWN = 12  # children of one kind; what is not present is always shown
WIDTH = 400  # no line is broken: a place can be copied
_STYLES = {"present": "green", "changed": "bold red", "gone": "bold red", "unreachable": "yellow"}
_FACTS = {"libraries": ("raypipe", "python", "xgboost", "polars"), "code": (), "definitions": ("sources", "views")}


def traced(root: Node, found: Mapping[State, int], folder: Path) -> str:
    """The tree, with places below the project's `folder` told from there, and how many of its nodes are there."""
    top = Tree(_line(root, folder))
    _add(top, root, folder)
    wrong = ", ".join(f"{count} {state}" for state, count in found.items() if count and state != "present")
    total = sum(found.values())
    said = f"{found['present']} of {total} present; {wrong}" if wrong else f"all {total} are present"
    return f"{_drawn(top, WIDTH)}\n{said}"


def scored(document: Mapping[str, Any]) -> str:
    """A table a section: each test with its points, what showed them, and what would show more."""
    drawn = []
    for name, section in document["sections"].items():
        table = Table(title=f"{name}: {section['score']:g} of 7", title_justify="left", box=SIMPLE_HEAD)
        table.add_column("test", ratio=2)
        table.add_column("points", justify="right")
        table.add_column("shown by", ratio=3)
        for item in section["items"]:
            more = "" if item["points"] == 1 else f"\nwould show more: {item['shown_by']}"
            shown = Text(item["evidence"]).append(more, style="dim")
            table.add_row(f"{item['number']} {item['test']}", f"{item['points']:g}", shown)
        drawn.append(_drawn(table))
    of = ", ".join(f"{name} {section['score']:g}" for name, section in document["sections"].items())
    said = f"version {document['version']}: ML Test Score {document['score']:g}, the least of {of}"
    return "\n".join([*drawn, f"{said}: {document['meaning']}"])


def _drawn(what: RenderableType, width: int | None = None) -> str:
    """What rich draws of it, with colours where stdout is a terminal; width: default the terminal's."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=sys.stdout.isatty(), highlight=False)
    console.print(what)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _add(branch: Tree, node: Node, folder: Path) -> None:
    for _, group in groupby(node.children, key=lambda child: child.kind):
        children = list(group)
        for child in _shown(children):
            _add(branch.add(_line(child, folder)), child, folder)
        hidden = len(children) - len(_shown(children))
        if hidden:
            branch.add(Text(f"and {hidden} more, present: --json lists all", style="dim"))


def _shown(children: Sequence[Node]) -> list[Node]:
    wrong = [c for c in children[SHOWN:] if any(n.seen and n.seen.state != "present" for n in c.walk())]
    return [*children[:SHOWN], *wrong]


def _line(node: Node, folder: Path) -> Text:
    """Kind, name, digest, state, facts, and where it lies."""
    line = Text(node.kind if node.name == node.kind else f"{node.kind} {node.name}", style="bold")
    if node.digest:
        line.append(f"  {short(node.digest)}", style="not bold")
    if node.seen:
        line.append(f"  {node.seen.state}", style=f"not bold {_STYLES[node.seen.state]}")
    facts = ", ".join(_facts(node))
    if facts:
        line.append(f"  {facts}", style="not bold")
    if node.seen and node.seen.says:
        line.append(f"  ({node.seen.says})", style="not bold red")
    if node.seen and node.kind not in ("definitions", "configuration", "libraries", "verdict"):
        place = node.seen.place.removeprefix("file://").removeprefix(f"{folder}/")
        line.append(f"  {place}", style="not bold dim")
    return line


def _facts(node: Node) -> Iterator[str]:
    names = _FACTS.get(node.kind, tuple(node.facts))
    for name in names:
        value = node.facts.get(name)
        if value in (None, [], {}):
            continue
        yield f"{name} {_value(value)}"
    if node.kind == "code" and node.facts["dirty"]:
        yield f"with changes that no commit holds: {', '.join(change.strip() for change in node.facts['changes'][:5])}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_value(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return " to ".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    return short(text) if len(text) == 64 and text.isalnum() else text

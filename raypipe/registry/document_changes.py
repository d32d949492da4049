"""Where two JSON documents differ, place by place. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

Path = tuple[str, ...]

SHOWN = 160  # characters of a value in words
NOTHING = "none"


class _Absent:
    """What stands where one of two documents has nothing."""


ABSENT = _Absent()


def changes(
    recorded: Any, now: Any, path: Path = (), *, whole: Callable[[Path], bool] = lambda path: False
) -> Iterator[tuple[Path, Any, Any]]:
    """Where two JSON documents differ: the place, and both values (`ABSENT`: none). Lists of named objects are compared
    by name; what `whole` says of a place is not looked into."""
    before, after = _by_name(recorded), _by_name(now)
    if isinstance(before, Mapping) and isinstance(after, Mapping) and not whole(path):
        for key in dict.fromkeys([*before, *after]):
            values = before.get(key, ABSENT), after.get(key, ABSENT)
            yield from changes(*values, (*path, str(key)), whole=whole)
    elif recorded != now:
        yield path, recorded, now


def _by_name(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(v, Mapping) and "name" in v for v in value):
        return {v["name"]: v for v in value}
    return value


def in_words(before: Path, change: tuple[Path, Any, Any]) -> str:
    """One of `changes`, whose place is below `before`."""
    path, old, new = change
    where = ".".join((*before, *path))
    if old is ABSENT or new is ABSENT:
        return f"{where} is {'new' if old is ABSENT else 'gone'}: {_shown(new if old is ABSENT else old)}"
    return f"{where}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else NOTHING if value is None else orjson.dumps(value).decode()
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."

"""What a command prints, and its exit code.

For people: words on stdout, progress and errors on stderr. With --json: one JSON document on stdout and everything
else, whoever prints it, on stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from raypipe.data.storage_errors import full, is_full
from raypipe.errors import ClusterError, DataError, RaypipeError

Result = tuple[dict[str, Any], str]  # the document, and the same in words


def run_command(command: Callable[[], Result], *, as_json: bool) -> None:
    """Run `command`, print its result, and leave with the exit code of what it raised (0, 1, 2, 3 or 4), or with 1
    where the document says that it is not `ok`."""
    sys.stdout.flush()
    stdout = os.dup(1)
    if as_json:
        os.dup2(2, 1)  # Ray and others print to descriptor 1 too
    try:
        document, words = command()
    except RaypipeError as error:
        _fail(error, stdout, as_json)
    except MemoryError:
        _fail(ClusterError("this process ran out of memory", hint="try --plan distributed"), stdout, as_json)
    except Exception as error:
        if is_full(error):
            _fail(full(_place(error), str(error).splitlines()[0]), stdout, as_json)
        if not isinstance(error, OSError):
            raise
        _fail(DataError("the operating system refused", where=error.filename, got=error.strerror), stdout, as_json)
    except KeyboardInterrupt:
        sys.exit(130)
    text = json.dumps({"ok": True, **document}, default=str) if as_json else words
    _write(stdout, text)
    if not document.get("ok", True):
        sys.exit(1)


def _place(error: Exception) -> str:
    return str(getattr(error, "filename", None) or "")


def _fail(error: RaypipeError, stdout: int, as_json: bool) -> NoReturn:
    if as_json:
        _write(stdout, json.dumps({"ok": False, "exit_code": error.exit_code, **error.to_json()}, default=str))
    else:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _write(descriptor: int, text: str) -> None:
    sys.stdout.flush()
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text + "\n")

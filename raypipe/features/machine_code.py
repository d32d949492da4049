"""Functions as machine code that is kept on disk: compiling them anew takes each process a second at its start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Numba's `njit(signature)`. The machine code lies beside the module's compiled files, else in the user's cache
    folder, by the CPU and the time of the source file, so that a function may use no constant of another file; where
    neither folder takes it, it is compiled for this process alone.
    """

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return njit(signature, cache=True)(function)
        except (RuntimeError, OSError):  # no folder that may be written; no room in it
            return njit(signature)(function)

    return compile_

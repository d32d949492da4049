"""Functions as machine code that is kept on disk: compiling them anew takes each process a second at its start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Numba's `njit(signature, **options)`. The machine code lies beside the module's compiled files, else in the
    user's cache folder, by the CPU and the time of the source file: who changes a constant of another file that a
    function uses has to change its file, too. Where neither folder takes it, it is compiled for this process alone.
    """

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return njit(signature, cache=True, **options)(function)
        except (RuntimeError, OSError):  # no folder that may be written; no room in it
            return njit(signature, **options)(function)

    return compile_

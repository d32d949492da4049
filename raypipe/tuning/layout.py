"""How many trials run at a time, with how many threads. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raypipe.errors import ClusterError
from raypipe.training.layout import SMALL_CELLS


@dataclass(frozen=True)
class Seats:
    """`trials` at a time, each in a process with `threads` threads."""

    trials: int
    threads: int

    def words(self) -> str:
        at_a_time = "1 trial" if self.trials == 1 else f"{self.trials} trials"
        return f"{at_a_time} at a time, of {self.threads} thread{'s' if self.threads > 1 else ''}"


def choose_seats(cells: int, needed: int, nodes: Sequence[int], free: int, trials: int) -> Seats:
    """The seats of a study over `cells` cells (rows x features), whose matrices take `needed` bytes a process.

    Small data: a trial a CPU, which uses them best; as many as memory holds. Large data: a trial a machine, with all
    its CPUs. nodes: CPUs of each machine; free: bytes of memory that one has free.
    Raises ClusterError if not even one trial fits into memory: external memory does not serve a search.
    """
    hold = free // max(needed, 1)
    if hold < 1:
        raise ClusterError(
            "the matrices of a trial do not fit into memory",
            where="project.yaml: training.tuning",
            got=f"{free / 2**20:,.0f} MiB free",
            expected=f"{needed / 2**20:,.0f} MiB",
            hint="tune on a shorter training part (split.train_from), with fewer folds, or on a larger machine",
        )
    threads = 1 if cells <= SMALL_CELLS else min(nodes)
    seats = sum(min(cpus // threads, hold) for cpus in nodes)
    return Seats(max(min(seats, trials), 1), threads)

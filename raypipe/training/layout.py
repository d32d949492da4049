"""How a run is laid out over processes and cores. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raypipe.errors import ClusterError
from raypipe.project.training_settings import Training

# Cells (rows x features) below which one process is quickest: 100 rounds of depth 8 take about 10 s on two cores, as
# long as starting worker processes.
SMALL_CELLS = 40_000_000
LARGE_CELLS = 100_000_000  # cells a worker: with fewer, adding up histograms over the network costs more than it saves


@dataclass(frozen=True)
class Layout:
    """`workers` processes of `threads` threads each, as Ray Train workers or (one) in this process; and why."""

    workers: int
    threads: int
    distributed: bool
    why: str

    def words(self) -> str:
        each = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        if not self.distributed:
            return f"1 process of {each}"
        return f"{self.workers} worker{'s' if self.workers > 1 else ''} of {each}"


def sized_by_cluster(settings: Training, cells: int, *, joined: bool) -> bool:
    """Whether the number of workers depends on the machines of the cluster that is joined."""
    return settings.workers == "auto" and joined and cells > SMALL_CELLS


def choose_layout(settings: Training, cells: int, nodes: Sequence[int], *, here: int, joined: bool) -> Layout:
    """The layout of a run over `cells` cells (rows x features).

    nodes: CPUs of each machine: of the cluster that is joined, else of this one alone. here: CPUs of this machine.
    Raises ClusterError for what the machines cannot hold, with the arithmetic: Ray would wait for ever.
    """
    if sized_by_cluster(settings, cells, joined=joined):
        layout = _over_machines(settings.threads, cells, nodes)
    elif settings.workers == "auto":
        why = f"{cells / 1e6:,.1f} million cells" if joined else "one machine"
        layout = Layout(1, settings.threads or here, distributed=False, why=why)
    else:
        threads = settings.threads or max(sum(nodes) // settings.workers, 1)
        threads = min(threads, max(nodes)) if settings.threads is None else threads
        layout = Layout(settings.workers, threads, joined or settings.workers > 1, "asked for")
    _require(layout, nodes)
    return layout


def _over_machines(threads: int | None, cells: int, nodes: Sequence[int]) -> Layout:
    each = threads or min(nodes)
    workers = max(1, min(sum(cpus // each for cpus in nodes), math.ceil(cells / LARGE_CELLS)))
    return Layout(workers, each, distributed=True, why=f"{cells / 1e6:,.0f} million cells, {len(nodes)} machines")


def _require(layout: Layout, nodes: Sequence[int]) -> None:
    """Raise ClusterError unless every worker finds its CPUs on one machine."""
    if not layout.distributed:
        return  # this process reserves nothing: more threads than cores are slow, and no hang
    places = sum(cpus // layout.threads for cpus in nodes)
    if layout.workers > places:
        wanted = layout.workers * layout.threads
        held = " + ".join(str(cpus) for cpus in nodes)
        raise ClusterError(
            f"{layout.workers} training workers of {layout.threads} CPUs do not fit",
            where="project.yaml: training.workers, training.threads",
            got=f"{held} CPUs, room for {places} such workers",
            expected=f"{layout.workers} x {layout.threads} = {wanted} CPUs",
            hint="lower training.workers or training.threads, or set workers: auto, or join a larger cluster",
        )


def within_free(layout: Layout, free: float) -> Layout:
    """The layout with threads for the CPUs that are free on the cluster, of which an endpoint may hold some."""
    threads = max(min(layout.threads, int(free) // layout.workers), 1)
    return replace(layout, threads=threads)


def layout_like(recorded: Layout, nodes: Sequence[int]) -> Layout:
    """The layout of an earlier run as far as these machines hold it; `why` says what does not fit (empty: all does).

    nodes: CPUs of each machine. The number of workers is kept as long as it can be, with fewer threads if need be: it
    decides how the sums of the workers' histograms round.
    """
    if not recorded.distributed:
        return replace(recorded, why="")  # this process reserves nothing
    held = f"{' + '.join(str(cpus) for cpus in nodes)} CPUs do not hold {recorded.words()}"
    for threads in range(recorded.threads, 0, -1):
        if sum(cpus // threads for cpus in nodes) >= recorded.workers:
            why = held if threads < recorded.threads else ""
            return Layout(recorded.workers, threads, distributed=True, why=why)
    return Layout(max(sum(nodes), 1), 1, distributed=True, why=held)

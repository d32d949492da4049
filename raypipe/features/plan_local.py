"""The plan for small inputs: one process, one view after the other, a thread a core."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import polars as pl

from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.source import ROW
from raypipe.features.job import Build, Job, Say, by_chunk, computing, put_together, write_chunk
from raypipe.features.point_in_time import view_features
from raypipe.features.spine import CHUNK, PARTITION
from raypipe.project import Project


def run(project: Project, job: Job, say: Say) -> Iterator[tuple[Build, list[dict[str, Any]], dict[str, float]]]:
    """Write all files of each partition; yields it with what its chunks hold, and seconds by view."""
    with computing("the spine"):
        rows = job.spine(project).sort(PARTITION, CHUNK, ROW).collect()
    computed, seconds = looked_up(project, job, rows, say)
    builds = {build.partition.start: build for build in job.builds}
    written: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    frame = put_together(project, rows, computed)
    for start, chunk, at, length in by_chunk(rows):
        written[start].append(write_chunk(frame.slice(at, length), chunk, builds[start].attempt))
    for start, build in builds.items():
        share = build.partition.rows / max(rows.height, 1)
        yield build, written[start], {name: took * share for name, took in seconds.items()}


def looked_up(
    project: Project, job: Job, rows: pl.DataFrame, say: Say
) -> tuple[dict[str, pl.DataFrame], dict[str, float]]:
    """The features of each view that looks at a source, in the order of the spine's `rows`; and seconds by view."""
    computed, seconds = {}, {}
    for view in project.definitions.views:
        if isinstance(view, FeatureView | LatestView):
            say(f"view {view.name}")
            began = time.monotonic()
            with computing(f"view '{view.name}'"):
                events = job.events(view).collect()
            computed[view.name] = view_features(view, events, rows, threads=pl.thread_pool_size())
            seconds[view.name] = time.monotonic() - began
    return computed, seconds

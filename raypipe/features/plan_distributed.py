"""The plan for larger inputs: Ray Data, in three stages that meet in files under the storage root.

1. Exchange: each task reads a slice of a source once and writes, for every view of it, the rows by hash of their
   entity and by time; likewise the spine. (raypipe.features.exchange)
2. Compute: a task takes one bucket of one view's entities, or, where an entity is hot, only some time of it with what
   the windows reach back, computes the features of its spine rows and writes them by chunk.
3. Assemble: a task reads the spine rows of some chunks and their features, adds the views that need no exchange
   (request, derived and static views), and writes the files. A partition is handed on when its last chunk is written.

No step brings a table to the driver: only file names and row counts come back.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import polars as pl
import pyarrow as pa

from raypipe.cluster.connect import cpus, prepare_ray_data, ray_errors
from raypipe.definitions import LatestView
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.definitions.source import ROW
from raypipe.features.exchange import Exchange, Scratch, compute_tasks, scan_tasks
from raypipe.features.job import Build, Job, by_chunk, put_together, write_chunk
from raypipe.features.partitions import Grid
from raypipe.features.point_in_time import view_features
from raypipe.features.ray_items import answers, item_of, load, tasks, to_table
from raypipe.features.spine import CHUNK, PARTITION, chunk_of
from raypipe.project import Project

ASSEMBLED_ROWS = 128 * 1024  # spine rows that one task of the last stage writes


def run(project: Project, job: Job) -> Iterator[tuple[Build, list[dict[str, Any]], dict[str, float]]]:
    """Write all files of each partition; yields it with what its chunks hold, and seconds by view. Runs in the driver,
    on a Ray cluster."""
    prepare_ray_data()
    with ray_errors("building features"), Scratch.make(project.storage) as scratch:
        exchange = Exchange.of(project, job, scratch.folder, int(cpus()))
        pieces, seconds = _compute(job, exchange, project)
        yield from _assembled(job, pieces, seconds, exchange)


Pieces = dict[tuple[str, int], dict[str, list[tuple[str, int]]]]  # (partition, chunk): by view, file and batch


def _compute(job: Job, exchange: Exchange, project: Project) -> tuple[Pieces, dict[str, float]]:
    """The features of all views that look at a source with a clock, by chunk."""
    scans = scan_tasks(project, job, exchange)
    if not scans:
        return {}, {}
    scanned = tasks(scans).map_batches(partial(_scan, job=job, exchange=exchange), batch_size=1, batch_format="pyarrow")
    wanted = compute_tasks(exchange, list(answers(scanned)))
    computed = tasks(wanted).map_batches(
        partial(_features, job=job, exchange=exchange), batch_size=1, batch_format="pyarrow"
    )
    pieces: Pieces = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, float] = defaultdict(float)
    for row in answers(computed):
        pieces[row["partition"], row["chunk"]][row["view"]].append((row["file"], row["batch"]))
        seconds[row["view"]] += row["seconds"]
    return pieces, seconds


def _assembled(
    job: Job, pieces: Pieces, seconds: dict[str, float], exchange: Exchange
) -> Iterator[tuple[Build, list[dict[str, Any]], dict[str, float]]]:
    """Each partition as its last chunk comes in."""
    groups: list[dict[str, Any]] = []
    for at, build in enumerate(job.builds):
        rows = ASSEMBLED_ROWS
        for chunk, count in build.chunks.items():
            if rows >= ASSEMBLED_ROWS:
                groups.append({"build": at, "chunks": []})
                rows = 0
            found = pieces.get((build.partition.start.isoformat(), chunk), {})
            groups[-1]["chunks"].append([chunk, found])
            rows += count
    if not groups:
        return
    written = tasks(groups).map_batches(
        partial(_assemble, job=job, exchange=exchange), batch_size=1, batch_format="pyarrow"
    )
    all_rows = max(sum(build.partition.rows for build in job.builds), 1)
    done: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for item in answers(written):
        build = job.builds[item["build"]]
        done[item["build"]] += item["chunks"]
        if len(done[item["build"]]) == len(build.chunks):
            share = build.partition.rows / all_rows
            yield build, done.pop(item["build"]), {view: took * share for view, took in seconds.items()}


# ---- what runs in Ray Data tasks ---------------------------------------------------------------


def _scan(batch: pa.Table, job: Job, exchange: Exchange) -> pa.Table:
    """Write one slice of a source, or of the spine, by view, time and hash of the entity."""
    project = load(job)
    return to_table(exchange.write(project, job, item_of(batch)))


def _features(batch: pa.Table, job: Job, exchange: Exchange) -> pa.Table:
    """Compute one view's features for the spine rows of one bucket and time, and write them, a batch a chunk."""
    project, item = load(job), item_of(batch)
    began, view = time.monotonic(), exchange.view(project, item["view"])
    events = exchange.read(view, item["events"], job.events(view, set()))
    asked = exchange.read(view, item["spine"], job.spine(project, set()))
    grid, settings = Grid.of(project.settings), project.settings.features
    keys = asked.select(
        ROW,
        grid.start(pl.col(PREDICTION_TIME)).alias(PARTITION),
        chunk_of(pl.col(ROW), settings.chunk_rows).alias(CHUNK),
    )
    computed = keys.hstack(view_features(view, events, asked).drop(ROW)).sort(PARTITION, CHUNK, ROW)
    del events, asked
    places = by_chunk(computed)
    file = exchange.write_batches(computed.drop(PARTITION, CHUNK), places)
    second = (time.monotonic() - began) / computed.height
    return to_table([
        {"view": view.name, "partition": start.isoformat(), "chunk": chunk, "file": file, "batch": number,
         "seconds": second * length}
        for number, (start, chunk, _, length) in enumerate(places)
    ])  # fmt: skip


def _assemble(batch: pa.Table, job: Job, exchange: Exchange) -> pa.Table:
    """Put the features of some chunks beside their spine rows and write their files."""
    project, item = load(job), item_of(batch)
    build, chunks = job.builds[item["build"]], []
    static = [v for v in project.definitions.views if isinstance(v, LatestView) and v.source.static]
    events = {view.name: job.events(view).collect() for view in static}
    for chunk, pieces in item["chunks"]:
        rows = job.chunk(project, build, chunk)
        computed = {name: exchange.read_batches(places, rows) for name, places in pieces.items()}
        computed |= {view.name: view_features(view, events[view.name], rows) for view in static}
        chunks.append(write_chunk(put_together(project, rows, computed), chunk, build.attempt))
    return to_table([{"build": item["build"], "chunks": chunks}])

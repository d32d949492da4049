"""The plan for larger inputs: Ray Data, in three stages that meet in files under the storage root.

1. Exchange: each task reads a slice of a source once and writes, for every view of it, the rows by hash of their
   entity and by time; likewise the spine. (raypipe.features.exchange)
2. Compute: a task takes one bucket of one view's entities, or, where an entity is hot, only some time of it with what
   the windows reach back, computes the features of its spine rows and writes them in order of chunk.
3. Assemble: a task reads the spine rows of some chunks and their features, adds the views that need no exchange
   (request, derived and static views), and writes the files. A partition is handed on when its last chunk is written.

No step brings a table to the driver: only file names and row counts come back.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import polars as pl

from raypipe.cluster.connect import node_cpus, prepare_ray_data, ray_errors
from raypipe.definitions import LatestView
from raypipe.definitions.source import ROW
from raypipe.features.exchange import Exchange, Run, Scratch, compute_tasks, joined, scan_tasks
from raypipe.features.job import Build, Job, Say, by_chunk, computing
from raypipe.features.point_in_time import view_features
from raypipe.features.ray_items import load, mapped
from raypipe.features.spine import CHUNK, PARTITION, chunk_of
from raypipe.project import Project

ASSEMBLED_ROWS = 128 * 1024  # spine rows that one task of the last stage writes


def run(project: Project, job: Job, say: Say) -> Iterator[tuple[Build, list[dict[str, Any]], dict[str, float]]]:
    """Write all files of each partition; yields it with what its chunks hold, and seconds by view. Runs in the driver,
    on a Ray cluster."""
    prepare_ray_data()
    with ray_errors("building features"), Scratch.make(project.storage) as scratch:
        exchange = Exchange.of(project, job, scratch.folder, sum(node_cpus()))
        computed, seconds = _compute(job, exchange, project, say)
        yield from _assembled(job, computed, seconds, exchange)


class Computed(NamedTuple):
    """The features of one view for the rows of one chunk of a partition, as far as one task computed them."""

    view: str
    chunk: int
    run: Run


ByPartition = dict[str, list[Computed]]


def _compute(job: Job, exchange: Exchange, project: Project, say: Say) -> tuple[ByPartition, dict[str, float]]:
    """Where the features lie of all views that look at a source with a clock; and seconds by view."""
    found: ByPartition = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    scans = scan_tasks(project, job, exchange)
    say(f"exchange, {len(scans)} tasks")
    tasks = compute_tasks(exchange, mapped(scans, partial(_scan, job=job, exchange=exchange)))
    computed = mapped(tasks, partial(_features, job=job, exchange=exchange))
    for number, answer in enumerate(computed, start=1):
        say(f"windows, {number} of {len(tasks)} tasks")
        seconds[answer["view"]] += answer["seconds"]
        for partition, chunk, at, rows in answer["chunks"]:
            found[partition].append(Computed(answer["view"], chunk, (answer["file"], at, rows)))
    return found, seconds


def _assembled(
    job: Job, computed: ByPartition, seconds: dict[str, float], exchange: Exchange
) -> Iterator[tuple[Build, list[dict[str, Any]], dict[str, float]]]:
    """Each partition as its last chunk comes in."""
    all_rows = sum(build.partition.rows for build in job.builds)
    done: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for answer in mapped(assemble_tasks(job, computed), partial(_assemble, job=job, exchange=exchange)):
        build, chunks = job.builds[answer["build"]], done[answer["build"]]
        chunks += answer["chunks"]
        if len(chunks) == len(build.chunks):
            share = build.partition.rows / all_rows
            yield build, done.pop(answer["build"]), {view: took * share for view, took in seconds.items()}


def assemble_tasks(job: Job, computed: ByPartition) -> list[dict[str, Any]]:
    """Tasks of about `ASSEMBLED_ROWS` spine rows, each of whole chunks of one or more partitions."""
    tasks: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    before = 0
    for number, build in enumerate(job.builds):
        for chunk, rows in build.chunks.items():
            tasks[before // ASSEMBLED_ROWS][number].append(chunk)
            before += rows
    return [{"parts": [_part(job, n, chunks, computed) for n, chunks in task.items()]} for task in tasks.values()]


def _part(job: Job, number: int, chunks: list[int], computed: ByPartition) -> dict[str, Any]:
    wanted, runs = set(chunks), defaultdict(list)
    for one in computed.get(job.builds[number].partition.start.isoformat(), []):
        if one.chunk in wanted:
            runs[one.view].append(one.run)
    return {"build": number, "chunks": chunks, "features": {view: joined(found) for view, found in runs.items()}}


# ---- what runs in Ray Data tasks ---------------------------------------------------------------


def _scan(item: dict[str, Any], job: Job, exchange: Exchange) -> list[dict[str, Any]]:
    """Write one slice of a source, or of the spine, by view, time and hash of the entity."""
    with computing(f"view {', '.join(item['views'])}"):
        return exchange.write(load(job), job, item)


def _features(item: dict[str, Any], job: Job, exchange: Exchange) -> list[dict[str, Any]]:
    """Compute one view's features for the spine rows of one bucket and time, and write them chunk by chunk."""
    began, project = time.monotonic(), load(job)
    view = exchange.view(project, item["view"])
    events = pl.concat([job.no_events(view), *exchange.get(item["events"])])
    asked = pl.concat(exchange.get(item["spine"]))
    chunk = chunk_of(pl.col(ROW), project.settings.features.chunk_rows)
    keys = asked.select(ROW, job.starts().alias(PARTITION), chunk.alias(CHUNK))
    computed = keys.hstack(view_features(view, events, asked).drop(ROW)).sort(PARTITION, CHUNK, ROW)
    file = exchange.put(computed.drop(PARTITION, CHUNK))
    chunks = [(start.isoformat(), chunk, at, rows) for start, chunk, at, rows in by_chunk(computed)]
    return [{"view": view.name, "file": file, "chunks": chunks, "seconds": time.monotonic() - began}]


def _assemble(item: dict[str, Any], job: Job, exchange: Exchange) -> list[dict[str, Any]]:
    """Put the features of some chunks beside their spine rows and write their files."""
    project, answers = load(job), []
    static = [v for v in project.definitions.views if isinstance(v, LatestView) and v.source.static]
    with computing(f"view {', '.join(view.name for view in static)}"):
        events = {view.name: job.events(view).collect() for view in static}
    for part in item["parts"]:
        build = job.builds[part["build"]]
        with computing("the spine"):
            rows = job.chunks(project, build, part["chunks"])
        computed = {name: pl.concat(exchange.get(runs)).sort(ROW) for name, runs in part["features"].items()}
        for name, frame in computed.items():
            assert frame[ROW].equals(rows[ROW]), f"the exchange lost or repeated rows of {name}"
        computed |= {view.name: view_features(view, events[view.name], rows) for view in static}
        answers.append({"build": part["build"], "chunks": job.write(project, build, rows, computed)})
    return answers

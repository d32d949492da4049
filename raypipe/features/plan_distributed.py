"""The plan for larger inputs: Ray Data, one shuffle by (view, entity), then a file's worth of rows a task.

1. Scan: tasks read slices of the prepared sources and of the spine, once for each window view, and tag each
   row with its view and the hash of its entity.
2. Shuffle: Ray Data brings all rows of a (view, entity) together; tasks compute the features of their partition
   and write them by chunk.
3. Assemble: a task a chunk reads its spine rows and their features, adds the views that need no shuffle (request,
   static and latest views, whose sources are small beside the windows'), and writes the chunk's files.

No step brings a table to the driver: only file names and row counts come back.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import ray
import ray.data

from raypipe.cluster.connect import cpus, prepare_ray_data, ray_errors
from raypipe.definitions import FeatureView, RequestView, View
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.definitions.source import EVENT_TIME, KNOWN_TIME, ROW, TIME
from raypipe.errors import DefinitionError
from raypipe.features.job import Job, write_part
from raypipe.features.point_in_time import event_columns, view_features
from raypipe.features.spine import CHUNK, trainable
from raypipe.project import Project, load_project

VIEW, IS_SPINE, SHUFFLE_KEY = "__view", "__is_spine", "__shuffle_key"
SLICE_ROWS = 128 * 1024


def run(project: Project, job: Job) -> list[dict[str, Any]]:
    """Write all files of the training set; return their names, parts and rows. Runs in the driver, on a Ray cluster."""
    prepare_ray_data()
    with ray_errors("building features"):
        return _run(project, job)


def _run(project: Project, job: Job) -> list[dict[str, Any]]:
    windows = [view.name for view in project.definitions.views if isinstance(view, FeatureView)]
    pieces = _compute_windows(project, job, windows) if windows else {}
    rows = job.sources[project.definitions.label.spine.name].rows
    chunks = [
        {"chunk": c, "pieces": pieces.get(c, {})} for c in range(-(-rows // project.settings.features.chunk_rows))
    ]
    parts = _tasks(chunks).map_batches(partial(_assemble, job=job), batch_size=1, batch_format="pyarrow")
    files = [row for row in parts.take_all() if row["rows"]]
    for path in job.attempt.glob("window-*.parquet"):
        path.unlink()
    return files


def _tasks(items: list[dict[str, Any]]) -> ray.data.Dataset:
    """One block an item, so that each is a task of its own; an item travels as JSON."""
    return ray.data.from_items(
        [{"item": orjson.dumps(item).decode()} for item in items], override_num_blocks=len(items)
    )


def _compute_windows(project: Project, job: Job, windows: list[str]) -> dict[int, dict[str, list[str]]]:
    """Files of window features by chunk and view."""
    slices = []
    for at, name in enumerate(windows):
        view = _view(project, name)
        for kind, source in (("events", view.source.name), ("spine", project.definitions.label.spine.name)):
            starts = range(0, max(job.sources[source].rows, 1), SLICE_ROWS)
            slices += [{"view": at, "kind": kind, "start": start} for start in starts]
    dataset = (
        _tasks(slices)
        .map_batches(partial(_scan, job=job, windows=windows), batch_size=1, batch_format="pyarrow")
        .repartition(project.settings.features.partitions or 2 * int(cpus()), keys=[SHUFFLE_KEY])
        .map_batches(partial(_features, job=job, windows=windows), batch_size=None, batch_format="pyarrow")
    )
    found: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in dataset.take_all():
        found[row["chunk"]][row["view"]].append(row["file"])
    return {chunk: {view: sorted(files) for view, files in views.items()} for chunk, views in found.items()}


# ---- what runs in Ray Data tasks ---------------------------------------------------------------


@cache
def _load(folder: str, definitions: str) -> Project:
    project = load_project(folder)
    if project.definitions.digest() != definitions:
        raise DefinitionError(
            "features.py has changed while the training set was built", where=folder, hint="run again"
        )
    return project


def _project(job: Job) -> Project:
    """The project as the driver loaded it, once a worker process. Raises DefinitionError if its files have changed."""
    return _load(job.folder, job.definitions)


def _view(project: Project, name: str) -> FeatureView:
    return next(v for v in project.definitions.views if isinstance(v, FeatureView) and v.name == name)


def _item(batch: pa.Table) -> dict[str, Any]:
    return dict(orjson.loads(batch["item"][0].as_py()))


def _shuffle_schema(project: Project, windows: list[str]) -> pl.Schema:
    """One schema for the rows of all views, events and spine alike."""
    request = project.definitions.label.request_schema()
    columns: dict[str, pl.DataType] = {
        VIEW: pl.Int32(),
        IS_SPINE: pl.Boolean(),
        SHUFFLE_KEY: pl.UInt64(),
        CHUNK: pl.Int64(),
    }
    for name in windows:
        view = _view(project, name)
        columns |= {c: request[c] for c in view.entity}
        columns |= {PREDICTION_TIME: project.definitions.label.request_scope()[PREDICTION_TIME]}
        empty = pl.DataFrame(schema=view.source.schema()).lazy().with_columns(_clock_placeholders())
        columns |= dict(empty.select(event_columns(view)).collect_schema())
    return pl.Schema(columns)


def _clock_placeholders() -> list[pl.Expr]:
    return [pl.lit(0, pl.Int64).alias(ROW), *(pl.lit(None, TIME).alias(name) for name in (EVENT_TIME, KNOWN_TIME))]


def _scan(batch: pa.Table, job: Job, windows: list[str]) -> pa.Table:
    """Read one slice of a source or of the spine for one view, and say where each row belongs."""
    project, item = _project(job), _item(batch)
    view = _view(project, windows[item["view"]])
    if item["kind"] == "events":
        rows = (
            job.scan(project, view.source.name, item["start"], SLICE_ROWS)
            .select(event_columns(view))
            .drop_nulls(view.entity)
        )
    else:
        spine = trainable(job.spine(project, item["start"], SLICE_ROWS))
        rows = spine.select(ROW, CHUNK, *view.entity, PREDICTION_TIME)
    has_entity = pl.all_horizontal(pl.col(c).is_not_null() for c in view.entity)
    entity = pl.struct(pl.lit(item["view"]), *view.entity).hash(seed=0)
    tagged = rows.with_columns(
        pl.lit(item["view"], pl.Int32).alias(VIEW),
        pl.lit(item["kind"] == "spine").alias(IS_SPINE),
        pl.when(has_entity).then(entity).otherwise(pl.col(ROW).hash(seed=0)).alias(SHUFFLE_KEY),
    ).collect()
    schema = _shuffle_schema(project, windows)
    return pl.concat([pl.DataFrame(schema=schema), tagged], how="diagonal").select(schema.names()).to_arrow()


def _features(batch: pa.Table, job: Job, windows: list[str]) -> pa.Table:
    """Compute the window features of one partition and write them, a file a view and chunk."""
    project, rows = _project(job), pl.DataFrame(batch)
    written: list[dict[str, Any]] = []
    for at, name in enumerate(windows):
        view, mine = _view(project, name), rows.filter(pl.col(VIEW) == at)
        spine = mine.filter(pl.col(IS_SPINE)).select(ROW, CHUNK, *view.entity, PREDICTION_TIME)
        if spine.height:
            computed = view_features(view, mine.filter(~pl.col(IS_SPINE)), spine).with_columns(spine[CHUNK])
            for (chunk,), piece in computed.group_by(CHUNK):
                file = f"window-{uuid.uuid4().hex}.parquet"
                piece.drop(CHUNK).write_parquet(job.attempt / file, compression="lz4")
                written.append({"chunk": chunk, "view": name, "file": file})
    schema = pa.schema([("chunk", pa.int64()), ("view", pa.string()), ("file", pa.string())])
    return pa.Table.from_pylist(written, schema=schema)


def _assemble(batch: pa.Table, job: Job) -> pa.Table:
    """Put the features of one chunk beside its spine rows and write its files."""
    project, item = _project(job), _item(batch)
    rows = job.chunk(project, item["chunk"])
    features = [_chunk_features(view, project, job, rows, item["pieces"]) for view in project.definitions.views]
    files = write_part(project, item["chunk"], rows, features, job.attempt) if rows.height else []
    schema = pa.schema([("name", pa.string()), ("part", pa.string()), ("rows", pa.int64())])
    return pa.Table.from_pylist(files, schema=schema)


def _chunk_features(view: View, project: Project, job: Job, rows: pl.DataFrame, pieces: dict[str, Any]) -> pl.DataFrame:
    if isinstance(view, RequestView):
        return rows.select(ROW, *view.columns())
    if isinstance(view, FeatureView):
        return _read_pieces(job.attempt, pieces[view.name], rows)
    events = job.scan(project, view.source.name).select(event_columns(view)).collect()
    return view_features(view, events, rows)


def _read_pieces(attempt: Path, files: list[str], rows: pl.DataFrame) -> pl.DataFrame:
    frame = pl.concat([pl.read_parquet(attempt / file) for file in files]).sort(ROW)
    assert frame[ROW].equals(rows[ROW]), "a shuffle lost or repeated rows"
    return frame

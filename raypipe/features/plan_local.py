"""The plan for small inputs: one process, one view after the other."""

from __future__ import annotations

from typing import Any

import polars as pl

from raypipe.definitions import RequestView, View
from raypipe.definitions.source import ROW
from raypipe.features.job import Job, write_part
from raypipe.features.point_in_time import event_columns, view_features
from raypipe.features.spine import CHUNK, trainable
from raypipe.project import Project


def run(project: Project, job: Job) -> list[dict[str, Any]]:
    """Write all files of the training set; return their names, parts and rows."""
    rows = trainable(job.spine(project)).sort(ROW).collect()
    features = [_features(view, project, job, rows) for view in project.definitions.views]
    files = []
    for (chunk,), index in rows.with_row_index("__at").group_by(CHUNK, maintain_order=True):
        start, length = index["__at"][0], index.height
        pieces = [frame.slice(start, length) for frame in features]
        files += write_part(project, chunk, rows.slice(start, length).drop(CHUNK), pieces, job.attempt)
    return files


def _features(view: View, project: Project, job: Job, rows: pl.DataFrame) -> pl.DataFrame:
    if isinstance(view, RequestView):
        return rows.select(ROW, *view.columns())
    events = job.scan(project, view.source.name).select(event_columns(view)).collect()
    return view_features(view, events, rows)

"""From the training set's files to XGBoost matrices, some files at a time. Runs in each training worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import xgboost as xgb

from raypipe.definitions.label import BASE_MARGIN, GROUP, LABEL, PREDICTION_TIME, WEIGHT
from raypipe.features.transforms import Transforms
from raypipe.training.shares import FileRows, share_groups

BATCH_CELLS = 4_000_000  # of a float32 batch (16 MB), which XGBoost gets at a time
PAGE_CELLS = 8_000_000  # of one that becomes a page on disk: rounds over pages of half the size take a quarter longer
Frames = Callable[[], Iterator[pl.DataFrame]]
Matrix = xgb.DMatrix  # one of its subclasses, but for a validation with categories


class Batches(xgb.DataIter):
    """Frames of training-set rows, each turned into a float32 matrix when XGBoost asks for it.

    XGBoost passes over them four times (three in external memory); `keep`: the batches stay in memory until
    `matrix_of` is done with them, so that the files are read once. `training`: the rows are of the training split,
    whose rows must not see their own labels in an encoding, and which class weights apply to. `cache`: a path on disk
    that external memory's pages begin with.
    """

    def __init__(
        self,
        frames: Frames,
        transforms: Transforms,
        *,
        training: bool,
        class_weights: Sequence[float] | None = None,
        cache: str | None = None,
        keep: bool = False,
    ) -> None:
        self.frames, self.transforms, self.training = frames, transforms, training
        self.class_weights = None if class_weights is None else np.array(class_weights, np.float32)
        self.left = frames()
        self.kept: list[dict[str, Any]] | None = [] if keep else None
        self.at, self.whole = 0, False
        super().__init__(cache_prefix=cache)

    def reset(self) -> None:
        self.at = 0
        if not self.whole:
            self.left = self.frames()
            self.kept = None if self.kept is None else []

    def next(self, input_data: Callable[..., Any]) -> bool:
        batch = self._kept() if self.whole else self._read()
        if batch is not None:
            input_data(**batch)
        return batch is not None

    def _kept(self) -> dict[str, Any] | None:
        assert self.kept is not None
        self.at += 1
        return self.kept[self.at - 1] if self.at <= len(self.kept) else None

    def _read(self) -> dict[str, Any] | None:
        frame = next(self.left, None)
        if frame is None:
            self.whole = self.kept is not None
            return None
        label = self.transforms.labels(frame)
        more = {"base_margin": _floats(frame[BASE_MARGIN])} if BASE_MARGIN in frame.columns else {}
        if GROUP in frame.columns:
            more["qid"] = frame[GROUP].to_numpy()
        batch = {
            "data": self.transforms.matrix(frame, training=self.training),
            "label": label,
            "weight": self._weight(frame, label),
            "feature_names": self.transforms.names,
            "feature_types": self.transforms.feature_types,
            **more,
        }
        if self.kept is not None:
            self.kept.append(batch)
        return batch

    def _weight(self, frame: pl.DataFrame, label: Any) -> Any:
        """A weight a row, a group of a ranking, or None where every row counts alike."""
        declared = _floats(frame[WEIGHT]) if WEIGHT in frame.columns else None
        if GROUP in frame.columns:
            firsts = frame.get_column(GROUP).rle_id().diff().fill_null(1).to_numpy() != 0
            return None if declared is None else declared[firsts]
        if self.class_weights is None or not self.training:
            return declared
        balanced = self.class_weights[label.astype(np.intp)]
        return balanced if declared is None else balanced * declared


def _floats(column: pl.Series) -> Any:
    return column.cast(pl.Float32).to_numpy()


def columns_of(schema: pl.Schema, transforms: Transforms) -> list[str]:
    """The columns of the training set's files that a matrix is made of."""
    beside = [LABEL, PREDICTION_TIME, WEIGHT, BASE_MARGIN, GROUP]
    return [*transforms.names, *(name for name in beside if name in schema and name not in transforms.names)]


def frames_of(
    share: Sequence[FileRows], transforms: Transforms, where: pl.Expr | None = None, *, external: bool = False
) -> Frames:
    """The rows of a share, of them those `where` it is true, read as they are asked for, in frames of at most about
    BATCH_CELLS cells (external: PAGE_CELLS); none of them is empty, unless the share is."""
    schema = pl.read_parquet_schema(share[0].path)
    columns = columns_of(pl.Schema(schema), transforms)
    most = max((PAGE_CELLS if external else BATCH_CELLS) // max(len(transforms.names), 1), 1)

    def read() -> Iterator[pl.DataFrame]:
        for batch in _batched(share, most):
            frame = pl.concat(_scan(piece, where).select(columns) for piece in batch).collect()
            if where is None or frame.height:
                yield frame

    return read


def _batched(share: Sequence[FileRows], most: int) -> Iterator[list[FileRows]]:
    """Neighbouring pieces together, up to `most` rows."""
    batch: list[FileRows] = []
    for piece in (part for whole in share for part in _cut(whole, most)):
        if batch and sum(p.rows for p in batch) + piece.rows > most:
            yield batch
            batch = []
        follows = bool(batch) and (batch[-1].path, batch[-1].stop) == (piece.path, piece.start)
        batch.append(FileRows(piece.path, batch.pop().start, piece.stop) if follows else piece)
    if batch:
        yield batch


def _cut(whole: FileRows, most: int) -> Iterator[FileRows]:
    """By row groups, since each part of one that is cut again decodes all of it; one of over `most` rows is cut."""
    metadata = pq.read_metadata(whole.path)
    ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]).tolist()
    for first, end in pairwise([0, *ends]):
        for start in range(max(first, whole.start), min(end, whole.stop), most):
            yield FileRows(whole.path, start, min(start + most, end, whole.stop))


def _scan(piece: FileRows, where: pl.Expr | None = None) -> pl.LazyFrame:
    rows = pl.scan_parquet(piece.path, glob=False).slice(piece.start, piece.rows)
    return rows if where is None else rows.filter(where)


def ranked_frames(share: Sequence[FileRows], transforms: Transforms, rank: int, workers: int) -> Frames:
    """The rows of a rank's groups, group by group, in one frame: XGBoost takes rankings in order of their groups.

    share: all rows of the part, of which the rank takes whole groups, in order of the groups' values.
    """
    columns = columns_of(pl.Schema(pl.read_parquet_schema(share[0].path)), transforms)
    rows = pl.concat(_scan(piece).select(columns) for piece in share)
    groups = rows.group_by(GROUP).len().sort(GROUP).collect()
    ranks = share_groups(groups["len"].to_numpy().astype(np.int64), workers)
    mine = groups.select(GROUP, pl.int_range(pl.len()).alias("__qid")).filter(pl.Series(ranks == rank))

    def read() -> Iterator[pl.DataFrame]:
        joined = rows.join(mine.lazy(), on=GROUP, nulls_equal=True, maintain_order="left")
        yield (
            joined.sort("__qid", maintain_order=True).with_columns(pl.col("__qid").alias(GROUP)).drop("__qid").collect()
        )

    return read


def matrix_of(
    batches: Batches, *, threads: int, max_bin: int, ref: Matrix | None = None, external: bool = False
) -> Matrix:
    """A QuantileDMatrix of the batches, in external memory if asked; validation needs the one of train as `ref`.

    Validation with categories is a plain DMatrix: by the bins of train, a category that train lacks would be taken for
    the last one that it has, and the metric would not be that of the model.
    """
    if ref is not None and "c" in batches.transforms.feature_types:
        return _plain(batches, threads=threads, external=external)
    kind = xgb.ExtMemQuantileDMatrix if external else xgb.QuantileDMatrix
    made: Matrix = kind(batches, ref=ref, nthread=threads, max_bin=max_bin, enable_categorical=True)
    batches.kept = None
    return made


def _plain(batches: Batches, *, threads: int, external: bool) -> xgb.DMatrix:
    if external:
        return xgb.DMatrix(batches, nthread=threads, enable_categorical=True)
    parts: list[dict[str, Any]] = []
    while batches.next(lambda **part: parts.append(part)):
        pass
    arrays = [name for name, value in parts[0].items() if isinstance(value, np.ndarray)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in arrays}
    return xgb.DMatrix(**{**parts[0], **joined}, nthread=threads, enable_categorical=True)


# Measured with XGBoost 3.2 on 2 and 5 million rows of 30 numbers with 5 % missing, at the peak: the bins and their
# column-wise copy (2 bytes a cell where nothing is missing), label, gradients and margins, and the batch being read.
CELL_BYTES, ROW_BYTES, CLASS_BYTES, BATCH_CELL_BYTES = 5, 28, 12, 24


def estimated_bytes(rows: int, features: int, classes: int = 1) -> int:
    """What training in memory takes at its peak, in bytes, beyond the imported libraries.

    classes: margins and gradients a row, 1 but for a multiclass label.
    """
    cells = rows * features
    return cells * CELL_BYTES + rows * (ROW_BYTES + CLASS_BYTES * classes) + min(cells, PAGE_CELLS) * BATCH_CELL_BYTES

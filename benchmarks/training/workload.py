"""What is trained on, how, and where the files of a workload lie.

A workload is a folder: `rows/part-*.parquet` (`id`, `at`, `y` and the columns, written by `prepare.py`), `project/`
(`project.py`), `job.json` (what the sides beside raypipe are told: `Job`) and a model a side.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from xgboost.callback import TrainingCallback

ID, AT, OUTCOME = "id", "at", "y"
COLUMNS = [f"f{number:02d}" for number in range(30)]
VALIDATION, METRIC = "validation", "logloss"
CORES = 2  # that each side has, as threads, as workers or as both
PARAMS = {"max_depth": 8, "eta": 0.1}
SEED = 7
BEGAN = "rounds_began"


@dataclass(frozen=True)
class Workload:
    """Rows of each part of the time split, all spread over `files`; `turns`: how often each side is measured."""

    name: str
    train: int
    validation: int
    test: int
    files: int
    rounds: int
    turns: int
    external_memory: bool = False  # raypipe is told to keep the matrix on disk
    memory_mib: int | None = None  # what raypipe has to stay under

    def parts(self, scale: float) -> dict[str, int]:
        """Rows of a file by part of the split."""
        rows = {"train": self.train, "validation": self.validation, "test": self.test}
        return {part: max(round(count * scale / self.files), 1) for part, count in rows.items()}


SMALL = Workload("S", 500_000, 50_000, 8_000, files=16, rounds=60, turns=3)
MEDIUM = Workload("M", 5_000_000, 250_000, 16_000, files=16, rounds=100, turns=3)
EXTERNAL = Workload(
    "X", 20_000_000, 250_000, 64_000, files=64, rounds=100, turns=1, external_memory=True, memory_mib=6 * 1024
)
WORKLOADS = {w.name: w for w in (SMALL, MEDIUM, EXTERNAL)}


@dataclass(frozen=True)
class Job:
    """What a side beside raypipe is told: the training set's Parquet files, and what to do with them."""

    train: list[str]
    validation: list[str]
    features: list[str]
    label: str
    params: dict[str, Any]
    rounds: int

    @classmethod
    def read(cls, folder: Path) -> Job:
        return cls(**json.loads((folder / "job.json").read_text()))

    def write(self, folder: Path) -> None:
        (folder / "job.json").write_text(json.dumps(asdict(self)))

    def frames(self, files: list[str]) -> tuple[pl.DataFrame, pl.Series]:
        """Features and label of some files."""
        frame = pl.read_parquet(files, columns=[*self.features, self.label])
        return frame.select(self.features), frame[self.label].cast(pl.Float32)


class Clock(TrainingCallback):
    """Notes in the model when the first round began (seconds since 1970): dask builds its matrices within `train`."""

    def before_training(self, model: Any) -> Any:
        model.set_attr(**{BEGAN: str(time.time())})
        return model


def rows_file(folder: Path, number: int) -> Path:
    return folder / "rows" / f"part-{number:03d}.parquet"


def model_file(folder: Path, side: str) -> Path:
    return folder / f"{side}.ubj"

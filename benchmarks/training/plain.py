"""The first peer: xgboost alone in one process. `python -m training.plain FOLDER FILE` trains and saves the model."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import xgboost as xgb

from training.workload import CORES, VALIDATION, Job


def main() -> None:
    job = Job.read(Path(sys.argv[1]))
    began = time.perf_counter()
    train = xgb.QuantileDMatrix(*job.frames(job.train), nthread=CORES)
    validation = xgb.QuantileDMatrix(*job.frames(job.validation), ref=train, nthread=CORES)
    loaded = time.perf_counter()
    booster = xgb.train(
        {**job.params, "nthread": CORES}, train, job.rounds, evals=[(validation, VALIDATION)], verbose_eval=False
    )
    trained = time.perf_counter()
    booster.save_model(sys.argv[2])
    print(json.dumps({"seconds": {"read": loaded - began, "rounds": trained - loaded}}))


if __name__ == "__main__":
    main()

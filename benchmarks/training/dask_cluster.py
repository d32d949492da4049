"""The other peer: xgboost.dask on a LocalCluster, a worker process a core, each with one thread.

`python -m training.dask_cluster FOLDER FILE` trains and saves the model.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import dask
import dask.dataframe as dd
import pandas as pd
from dask.distributed import Client, LocalCluster, wait
from xgboost import dask as dxgb

from training.workload import BEGAN, CORES, VALIDATION, Clock, Job


def matrix(
    client: Client, job: Job, files: list[str], ref: dxgb.DaskQuantileDMatrix | None = None
) -> dxgb.DaskQuantileDMatrix:
    """The files, read into the workers' memory once, a partition each; the matrix itself is built when training begins.

    Not by `dd.read_parquet`: where it reads few of a file's columns it joins partitions, and xgboost loses them.
    """
    frame = client.persist(dd.from_map(pd.read_parquet, files, columns=[*job.features, job.label]))
    wait(frame)
    return dxgb.DaskQuantileDMatrix(client, frame[job.features], frame[job.label], ref=ref)


def main() -> None:
    folder = Path(sys.argv[1])
    job = Job.read(folder)
    dask.config.set({"temporary-directory": str(folder)})
    with (
        LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        began = time.time()
        train = matrix(client, job, job.train)
        validation = matrix(client, job, job.validation, ref=train)
        booster = dxgb.train(
            client,
            {**job.params, "nthread": 1},
            train,
            job.rounds,
            evals=[(validation, VALIDATION)],
            verbose_eval=False,
            callbacks=[Clock()],
        )["booster"]
        trained = time.time()
        booster.save_model(sys.argv[2])
    loaded = float(booster.attr(BEGAN))
    print(json.dumps({"seconds": {"read": loaded - began, "rounds": trained - loaded}}))


if __name__ == "__main__":
    main()

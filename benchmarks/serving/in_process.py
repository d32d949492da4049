"""XGBoost alone over the requests' matrix: `python -m serving.in_process FOLDER ROWS THREADS SECONDS`.

Prints the calls a second and their latencies, as `post.lua` has wrk print them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import xgboost as xgb

from serving.keep_alive import percentiles_ms
from serving.workload import Requests, model_file


def main() -> None:
    folder, (rows, threads, seconds) = Path(sys.argv[1]), map(int, sys.argv[2:])
    booster = xgb.Booster({"nthread": threads}, model_file=model_file(folder))
    matrices = [matrix.astype(np.float32) for matrix in Requests.read(folder, rows).asked]
    latencies, began = [], time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        booster.inplace_predict(matrices[len(latencies) % len(matrices)])
        latencies.append(time.perf_counter() - now)
    took = time.perf_counter() - began
    print(json.dumps({"rps": round(len(latencies) / took, 1), **percentiles_ms(latencies)}))


if __name__ == "__main__":
    main()

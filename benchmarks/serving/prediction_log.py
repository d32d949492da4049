"""What the prediction log costs: on a request's path, in CPU altogether, and how quickly it empties a spool.

    python -m benchmarks.serving.prediction_log

One process, requests of one row with 40 features and 5 fields; the table lies in a temporary folder.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from raypipe.serving.model import Predictions
from raypipe.serving.prediction_log.config import LogConfig
from raypipe.serving.prediction_log.log import PredictionLog
from raypipe.serving.prediction_log.records import LoggedVersion
from raypipe.serving.record import Served

REQUESTS, SLICE, FEATURES, ROUNDS = 20_000, 100, 40, 7
ROW = {"carrier": "UA", "origin": "EWR", "dest": "SFO", "tailnum": "N35236", "scheduled_at": "2013-11-27T12:00:00Z"}


def microseconds(log: PredictionLog, request: Served) -> float:
    """What a request takes, the mean of a slice."""
    began = time.perf_counter()
    for _ in range(SLICE):
        log.observe(request)
    return (time.perf_counter() - began) / SLICE * 1e6


def main() -> None:
    matrix = np.random.default_rng(1).random((1, FEATURES), dtype=np.float32)
    made = Predictions(
        matrix[:, 0].copy(), np.array([1_385_553_600_000_000]), matrix, None, "compiled", np.ones(1, bool)
    )
    request = Served("0123456789abcdef0123456789abcdef", time.time_ns() // 1000, "m", "1", "UA", [ROW], made)
    on_path, cpu, rates = [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            config = LogConfig(str(Path(folder) / "table"), 1.0, 1000.0, 64 * 1024**2, None, None, ())
            log = PredictionLog(config, "replica", {"1": LoggedVersion("b" * 64)})
            spent = time.process_time()
            on_path += [microseconds(log, request) for _ in range(REQUESTS // SLICE)]
            began = time.perf_counter()
            if not log.close(60) or log.counts.written != REQUESTS:
                raise SystemExit(f"not all was written: {log.counts}")
            rates.append(REQUESTS / (time.perf_counter() - began))
            cpu.append((time.process_time() - spent) / REQUESTS * 1e6)
    half, most = np.percentile(on_path, [50, 95])
    print(f"on a request's path   {half:8.1f} us, 95 of 100 slices of {SLICE} requests within {most:.1f}")
    print(f"CPU altogether        {statistics.median(cpu):8.1f} ms for 1,000 requests")
    print(f"from spool to table   {statistics.median(rates):8,.0f} rows/s")
    print(f"bytes of a record     {log.counts.bytes / REQUESTS:8.0f}")


if __name__ == "__main__":
    main()

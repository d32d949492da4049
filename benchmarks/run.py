"""Measure raypipe beside what a user would pick instead: `run.py [features] [training] [serving] [--out FILE]`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from features import compare as features
from measure import QUIET_CORES, Machine, Table
from serving import batch, bulk, flights, overload
from serving import compare as serving
from serving.options import Options, add_options, options
from training import compare as training

# What `features`, `training` and `serving` stand for; the other workloads run only by name.
SOME = {
    "features": ("features:A", "features:B", "features:O"),
    "training": ("training:S", "training:M"),
    "serving": ("serving:one-row", "serving:hundred-rows"),
}


def benchmarks(scale: float, asked: Options) -> dict[str, Callable[[Machine, Path], Table]]:
    """Each benchmark by its name, over that share of the rows of features, training and batch scoring."""
    windows = {f"features:{w}": partial(features.compare, name=w, scale=scale) for w in ("A", "B", "C")}
    online = partial(features.compare_online, name="O", scale=scale)
    trees = {f"training:{w}": partial(training.compare, name=w, scale=scale) for w in ("S", "M", "X")}
    servers = {f"serving:{name}": partial(serving.compare, name=name, options=asked) for name in serving.ROWS}
    servers |= {f"serving:{of.NAME}": partial(of.compare, options=asked) for of in (flights, bulk, overload)}
    table = partial(batch.compare, options=asked, scale=scale)
    return {**windows, "features:O": online, **trees, **servers, f"serving:{batch.NAME}": table}


def measured(run: Callable[[Machine, Path], Table], patience_s: float) -> dict[str, Any]:
    """Run one benchmark in a folder of its own, and print its table."""
    machine = Machine(patience_s)
    with tempfile.TemporaryDirectory(prefix="raypipe-benchmark-") as folder:
        result = run(machine, Path(folder))
    print(f"\n{result.table()}", flush=True)
    loud = sum(busy > QUIET_CORES for busy in machine.busy)
    if loud:
        print(f"\nOthers kept up to {max(machine.busy):.1f} cores busy before {loud} of {len(machine.busy)} measures.")
    return {**asdict(result), "cores": os.cpu_count(), "busy_cores_before": machine.busy}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that servers are ended, too
    parser = argparse.ArgumentParser(description=__doc__)
    names = ", ".join([*SOME, *benchmarks(1, Options())])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{names}; default: features, training, serving")
    parser.add_argument("--out", type=Path, help="write every round's figures to this JSON file")
    parser.add_argument("--patience", type=float, default=600, help="seconds to wait, in all, for others to be quiet")
    parser.add_argument("--scale", type=float, default=1.0, help="the share of rows to try what reads tables with")
    add_options(parser)
    given = parser.parse_args()
    if not 0 < given.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")
    known, asked = benchmarks(given.scale, options(given)), given.names or ["features", "training", "serving"]
    chosen = list(dict.fromkeys(one for name in asked for one in SOME.get(name, (name,))))
    if unknown := set(chosen) - set(known):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    results = {name: measured(known[name], given.patience) for name in chosen}
    if given.out:
        given.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

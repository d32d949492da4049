"""Measure raypipe beside what a user would pick instead: `run.py [features] [training] [serving] [--out FILE]`."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import features
import serving
import training
from measure import QUIET_CORES, Machine

BENCHMARKS = {"features": features.compare, "training": training.compare, "serving": serving.compare}


def measured(name: str, patience_s: float) -> dict[str, Any]:
    """Run one benchmark in a folder of its own, and print its table."""
    machine = Machine(patience_s)
    with tempfile.TemporaryDirectory(prefix="raypipe-benchmark-") as folder:
        comparison = BENCHMARKS[name](machine, Path(folder))
    print(f"\n{comparison.table()}", flush=True)
    loud = sum(busy > QUIET_CORES for busy in machine.busy)
    if loud:
        print(f"\nOthers kept up to {max(machine.busy):.1f} cores busy before {loud} of {len(machine.busy)} measures.")
    return {**asdict(comparison), "cores": os.cpu_count(), "busy_cores_before": machine.busy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--out", type=Path, help="write every round's figures to this JSON file")
    parser.add_argument("--patience", type=float, default=600, help="seconds to wait, in all, for others to be quiet")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    results = {name: measured(name, given.patience) for name in given.names or BENCHMARKS}
    if given.out:
        given.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

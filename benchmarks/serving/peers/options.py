"""What every peer's script is given, and the model that it loads. It runs in an environment without raypipe."""

from __future__ import annotations

import argparse
from pathlib import Path

import xgboost as xgb


def options(**more: int) -> argparse.Namespace:
    """`--port`, `--model FILE`, and further whole numbers with their defaults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def load(model: Path | str) -> xgb.Booster:
    """The model, with one thread: a server answers requests beside each other, not one of them faster."""
    return xgb.Booster({"nthread": 1}, model_file=str(model))

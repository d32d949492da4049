"""xgboost alone in one process: the same parameters on the same files, with nothing around them.

`training_peer.py xgboost FOLDER ROUNDS` trains; `training_peer.py score FOLDER` scores both sides' models.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import xgboost as xgb

from raypipe.features.transforms import Transforms


def train(job: dict[str, Any], trees: int) -> xgb.Booster:
    """Like raypipe's, the model is cut after the round that was best on validation."""
    rows = matrix(job, "train")
    booster = xgb.train(
        {**job["params"], "nthread": job["threads"]},
        rows,
        trees,
        evals=[(matrix(job, "validation", rows), "validation")],
        early_stopping_rounds=trees,
        verbose_eval=False,
    )
    return booster[: booster.best_iteration + 1]


def matrix(job: dict[str, Any], part: str, ref: xgb.QuantileDMatrix | None = None) -> xgb.QuantileDMatrix:
    """The files of one part as the matrix that raypipe's workers make of theirs."""
    transforms = Transforms.from_json(json.loads(Path(job["transforms"]).read_text()))
    frame = pl.read_parquet(job["files"][part])
    return xgb.QuantileDMatrix(
        transforms.matrix(frame, training=part == "train"),
        frame["label"].to_numpy(),
        feature_names=transforms.names,
        feature_types=transforms.feature_types,
        ref=ref,
        nthread=job["threads"],
        enable_categorical=True,
    )


def score(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """ROC AUC of both models on the test part, computed in one place."""
    from sklearn.metrics import roc_auc_score

    test = matrix(job, "test")
    label = test.get_label()
    models = {side: xgb.Booster(model_file=folder / f"{side}.ubj") for side in ("raypipe", "xgboost")}
    return {
        "train": pl.scan_parquet(job["files"]["train"]).select(pl.len()).collect().item(),
        "test": len(label),
        "columns": test.num_col(),
        "roc_auc": {side: float(roc_auc_score(label, model.predict(test))) for side, model in models.items()},
    }


def main() -> None:
    step, folder = sys.argv[1], Path(sys.argv[2])
    job = json.loads((folder / "training.json").read_text())
    if step == "score":
        print(json.dumps(score(folder, job)))
    else:
        train(job, int(sys.argv[3])).save_model(folder / "xgboost.ubj")


if __name__ == "__main__":
    main()

"""Are the models right? `python -m training.score FOLDER SIDE...` computes their figures on the validation rows.

Trained on other rows, on half of them, or with other parameters, a model shows in its log loss; cuts that other
sketches put a little elsewhere do not. Prints for each side `roc_auc`, `log_loss`, `trees` and `right`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import xgboost as xgb
from sklearn.metrics import log_loss, roc_auc_score

from training.workload import Job, model_file

TOLERANCE = 0.001  # of log loss, from the first side's


def score(folder: Path, sides: list[str]) -> dict[str, dict[str, Any]]:
    """The first side is what the others are held against."""
    job = Job.read(folder)
    features, label = job.frames(job.validation)
    rows, figures = xgb.DMatrix(features), {}
    for side in sides:
        model = xgb.Booster(model_file=model_file(folder, side))
        chance = model.predict(rows)
        figures[side] = {
            "roc_auc": float(roc_auc_score(label, chance)),
            "log_loss": float(log_loss(label, chance)),
            "trees": model.num_boosted_rounds(),
        }
    expected = figures[sides[0]]["log_loss"]
    return {side: f | {"right": abs(f["log_loss"] - expected) <= TOLERANCE} for side, f in figures.items()}


if __name__ == "__main__":
    print(json.dumps(score(Path(sys.argv[1]), sys.argv[2:])))

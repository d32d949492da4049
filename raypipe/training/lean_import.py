"""XGBoost as training workers and replicas import it. Imports nothing itself, so that it can come before all else."""

from __future__ import annotations

import sys
from typing import Any


def import_xgboost() -> None:
    """Without scikit-learn, which XGBoost imports where it can: a second of CPU and 50 MB for estimators that nobody
    uses. Code of the project that imports it afterwards gets it. Called in each worker process."""
    modules: dict[str, Any] = sys.modules
    if "xgboost" in modules or "sklearn" in modules:
        return
    modules["sklearn"] = None  # which makes importing it an ImportError
    try:
        import xgboost  # noqa: F401
    finally:
        del modules["sklearn"]

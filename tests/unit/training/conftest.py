"""A made-up table with numbers, a category, gaps and an interaction, as XGBoost matrices."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xgboost as xgb

FEATURES = 8


@pytest.fixture(scope="session")
def table() -> SimpleNamespace:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3000, FEATURES)).astype(np.float32)
    x[:, 2] = rng.integers(0, 12, len(x))
    signal = x[:, 0] * x[:, 1] + np.sin(x[:, 2]) + 0.5 * x[:, 3]
    noise = rng.standard_normal(len(x))
    x[rng.random(x.shape) < 0.05] = np.nan
    labels = {
        "binary:logistic": signal + noise > 0,
        "multi:softprob": np.digitize(signal + noise, [-1, 1]),
        "reg:squarederror": signal + noise,
        "reg:absoluteerror": signal + noise,
        "count:poisson": np.floor(np.exp(np.clip(signal, -2, 2))),
        "rank:ndcg": np.clip(np.round(signal + noise + 2), 0, 4),
    }
    types = ["c" if i == 2 else "q" for i in range(FEATURES)]

    def matrices(objective: str) -> tuple[xgb.QuantileDMatrix, xgb.QuantileDMatrix]:
        y = labels[objective].astype(np.float32)
        made = []
        for part in (slice(0, 2000), slice(2000, 3000)):
            qid = np.arange(len(x))[part] // 20 if objective.startswith("rank") else None
            made.append(
                xgb.QuantileDMatrix(
                    x[part], y[part], qid=qid, feature_types=types, enable_categorical=True, nthread=1,
                    ref=made[0] if made else None,
                )
            )  # fmt: skip
        return made[0], made[1]

    return SimpleNamespace(x=x, labels=labels, types=types, matrices=matrices)

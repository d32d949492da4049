"""The rows that the model loses most by, with what it saw in them and what that added to the score.

`worst_rows.parquet`, next to `evaluation.json`: `row` (the source's row number), `time`, `label`, `score`, `loss`, the
features that are not personal under their own names with `feature.` before them, and `contribution.<feature>` of all
with `contribution.bias`: exact (raypipe.evaluation.explain), on the scale of the margin, which they add up to. A base
margin is part of the bias. Of a multiclass model score and contributions are those of the label's class: what kept it
low.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from raypipe.definitions.label import LABEL, PREDICTION_TIME
from raypipe.definitions.source import ROW
from raypipe.evaluation.explain import contributions
from raypipe.evaluation.metrics import row_loss
from raypipe.evaluation.tested import Tested

FILE = "worst_rows.parquet"
IN_FILE, IN_RESULT = 300, 20
FEATURE, CONTRIBUTION, BIAS = "feature.", "contribution.", "bias"


def worst_rows(tested: Tested) -> pl.DataFrame:
    """The IN_FILE rows of the highest loss, highest first; rows of weight 0 do not count. Reads a file at a time."""
    found = tested.model
    loss = row_loss(tested.task, found)
    counting = np.arange(len(loss)) if found.weight is None else np.flatnonzero(found.weight > 0)
    places = counting[np.argsort(-loss[counting], kind="stable")[:IN_FILE]]
    names, features = tested.transforms.names, tested.gather(tested.scored, places)
    score, added = found.score[places], contributions(tested.booster, tested.transforms, features)
    if tested.transforms.classes is not None:
        own = np.arange(len(places)), found.label[places].astype(np.intp)
        score, added = score[own], added[own]
    rows = tested.rows[places].select(row=ROW, time=PREDICTION_TIME, label=LABEL)
    rows = rows.with_columns(score=pl.Series(score), loss=pl.Series(loss[places]))
    personal = tested.project.definitions.personal()
    values = features.select(pl.col([name for name in names if name not in personal]).name.prefix(FEATURE))
    parts = pl.DataFrame(added, schema=[CONTRIBUTION + name for name in (*names, BIAS)])
    return pl.concat([rows, values, parts], how="horizontal")


def to_json(rows: pl.DataFrame) -> dict[str, Any]:
    """The first IN_RESULT of them, with the name of the file that has all."""
    return {"file": FILE, "rows": [_described(row) for row in rows.head(IN_RESULT).iter_rows(named=True)]}


def _described(row: dict[str, Any]) -> dict[str, Any]:
    plain = {name: row[name] for name in ("row", "time", "label", "score", "loss")}
    inside = {
        kind: {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        for kind, prefix in (("features", FEATURE), ("contributions", CONTRIBUTION))
    }
    return {**plain, **inside}

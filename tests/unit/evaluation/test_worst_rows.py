"""The rows that a model loses most by, of boosters that are trained here."""

from __future__ import annotations

import numpy as np
import orjson
import polars as pl
import pytest

from raypipe.evaluation.metrics import row_loss
from raypipe.evaluation.worst_rows import BIAS, CONTRIBUTION, FEATURE, to_json, worst_rows


def test_they_are_the_rows_of_the_highest_loss(tested):
    worst = worst_rows(tested)
    counts = np.ones(tested.rows.height, bool) if tested.model.weight is None else tested.model.weight > 0
    every = tested.rows.with_columns(loss=pl.Series(row_loss(tested.task, tested.model))).filter(pl.Series(counts))
    assert worst["loss"].to_list() == every["loss"].sort(descending=True).head(300).to_list()
    same = worst.join(every, left_on="row", right_on="__row", how="left")
    assert same.height == worst.height
    assert same["loss"].to_list() == same["loss_right"].to_list()
    assert same["label"].to_list() == same["label_right"].to_list()


def test_they_show_what_the_model_saw(tested):
    worst = worst_rows(tested)
    every = pl.concat(list(tested.frames()))
    seen = worst.select("row").join(every, left_on="row", right_on="__row", how="left", maintain_order="left")
    for name in tested.transforms.names:
        assert worst[FEATURE + name].equals(seen[name], null_equal=True), name


def test_the_contributions_add_up_to_the_margin(tested):
    worst = worst_rows(tested)
    every = pl.concat(list(tested.frames()))
    seen = worst.select("row").join(every, left_on="row", right_on="__row", how="left", maintain_order="left")
    base = seen["base_margin"].cast(pl.Float32).to_numpy() if "base_margin" in seen.columns else None
    transforms = tested.transforms
    margin = np.asarray(
        tested.booster.inplace_predict(transforms.matrix(seen), predict_type="margin", base_margin=base)
    )
    if transforms.classes is not None:
        margin = margin[np.arange(len(margin)), transforms.labels(seen).astype(int)]
    added = worst.select(pl.sum_horizontal(pl.col(f"^{CONTRIBUTION}.*$"))).to_series().to_numpy()
    assert added == pytest.approx(margin, abs=1e-4)
    assert CONTRIBUTION + BIAS in worst.columns


def test_twenty_are_told_in_json(tested):
    worst = worst_rows(tested)
    found = orjson.loads(orjson.dumps(to_json(worst)))
    assert found["file"] == "worst_rows.parquet"
    assert len(found["rows"]) == 20
    first = found["rows"][0]
    assert set(first) == {"row", "time", "label", "score", "loss", "features", "contributions"}
    assert set(first["features"]) == set(tested.transforms.names)
    assert set(first["contributions"]) == {*tested.transforms.names, BIAS}
    assert first["loss"] == max(row["loss"] for row in found["rows"])


def test_no_personal_value_is_shown(tested_of, tmp_path):
    edits = [
        ("user = dy.String(nullable=True)", 'user = dy.String(nullable=True, metadata={"personal": True})'),
        ('"shop": pl.col("shop")})', '"shop": pl.col("shop"), "user": pl.col("user")})'),
    ]
    tested = tested_of("binary", tmp_path / "shop", edits=edits)
    worst = worst_rows(tested)
    shown = {column.removeprefix(FEATURE) for column in worst.columns if column.startswith(FEATURE)}
    assert set(tested.transforms.names) - shown == {"ask_user"}
    assert f"{CONTRIBUTION}ask_user" in worst.columns

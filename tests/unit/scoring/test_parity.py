"""A row has the same score in batch, online and in evaluation: the same features by another way, the same bits."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from raypipe.features.score import score
from raypipe.scoring import job

pytestmark = pytest.mark.slow  # projects built whole

TASKS = ["binary", "multiclass", "regression", "ranking"]


def bits(scores: pl.DataFrame) -> bytes:
    """The model's numbers, row after row."""
    [name] = {"probability", "value", "score", "probabilities"} & set(scores.columns)
    numbers = scores[name].struct.unnest() if name == "probabilities" else scores.select(name)
    return np.ascontiguousarray(numbers.to_numpy(), np.float32).tobytes()


@pytest.fixture(scope="module", params=TASKS)
def made(request, scorer, shop_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return scorer(shop_of(request.param, folder, settings={"scoring.chunk_rows": 70}))


@pytest.fixture
def asked(as_of, tables) -> pl.DataFrame:
    """Rows to predict for from the as-of time on, among them users and shops without a past."""
    visits = tables["visits"].select("user", "shop").sample(150, seed=1)
    minutes = pl.int_range(pl.len()) * 37 % 4321
    times = pl.lit(as_of + timedelta(minutes=30)) + pl.duration(minutes=minutes)
    strangers = pl.DataFrame({"user": ["nobody", None], "shop": ["d", "c"]})
    return pl.concat([visits, strangers]).select(times.alias("at"), "user", "shop")


def test_online(made, asked, as_of, monkeypatch):
    """By the compiled trees, as of a table of a million rows; below, evaluation and batch ask XGBoost."""
    monkeypatch.setattr(job, "_WORTH_ROWS", 0)
    asked.write_parquet(made.project.folder / "ask.parquet")
    batch = made.score(as_of=as_of).rows
    online = made.online(as_of).predict(asked)
    assert bits(batch) == online.scores.tobytes()
    assert len(np.unique(online.scores)) > 10
    assert batch["feature_time"].dt.epoch("us").to_list() == online.feature_time_us.tolist()


def test_evaluation(made, tables):
    """Rows of the past, each with what was known at its time: what the training set holds of the same rows."""
    tables["visits"].select("at", "user", "shop", "visit").write_parquet(made.project.folder / "past.parquet")
    batch = made.score("past.parquet", keep=("visit",)).rows
    source = made.sources["visits"].scan().select("__row", "visit").collect()
    parts = [pl.read_parquet(made.training_set.files(part)) for part in ("train", "validation", "test")]
    known = pl.concat(parts).join(source, on="__row")
    joined = known.join(batch, on="visit", validate="1:1", maintain_order="left")
    assert joined.height == known.height > 400
    expected = score(made.bundle.model, made.bundle.transforms, known)
    assert bits(joined) == expected.tobytes()
    classes = made.bundle.transforms.classes
    if classes is not None:
        assert joined["class"].to_list() == [classes[at] for at in expected.argmax(axis=1)]
    assert joined["prediction_time"].to_list() == joined["prediction_time_right"].to_list()


def test_what_became_known_later_has_no_part_in_it(made, asked, as_of):
    """Without the as-of time, rows that became known between it and the prediction time change some scores."""
    early = asked.with_columns(pl.col("at") - pl.duration(days=20))
    early.write_parquet(made.project.folder / "early.parquet")
    as_known = made.score("early.parquet", as_of=as_of - timedelta(days=20)).rows
    with_all = made.score("early.parquet").rows
    names = [name for name in as_known.columns if name != "snapshot"]
    assert not as_known.select(names).equals(with_all.select(names))
    online = made.online(as_of - timedelta(days=20)).predict(early)
    assert bits(as_known) == online.scores.tobytes()

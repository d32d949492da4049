"""A prediction over HTTP is the offline one: same row, same known rows, same number."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from raypipe.evaluation.evaluate import SCORES

FROM, UNTIL = datetime(2013, 11, 27, 9, 15, tzinfo=UTC), datetime(2013, 11, 27, 10, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def scored(flights) -> pl.DataFrame:
    """The test rows of the quiet hour after the state's as-of time, with their offline scores."""
    rows = pl.scan_parquet(flights.training_set.files("test"))
    scores = pl.read_parquet(flights.evaluation.output.path(SCORES)).select("__row", "score")
    quiet = rows.filter(pl.col("prediction_time").is_between(FROM, UNTIL, closed="left")).collect()
    return quiet.join(scores, on="__row", validate="1:1")


def test_the_hour_is_quiet(flights, scored):
    for name, source in flights.sources.items():
        if not flights.project.definitions.source(name).static:
            known = pl.col("__known_time")
            assert source.scan().filter((known > FROM) & (known < UNTIL)).collect().is_empty()
    assert scored.height > 60
    assert scored["prediction_time"].n_unique() > 15
    assert scored["score"].n_unique() > 50


def test_online_equals_offline(flights, call, scored):
    request = scored.select(flights.project.definitions.label.request)
    rows = [row | {"scheduled_at": row["scheduled_at"].isoformat()} for row in request.to_dicts()]
    answer = call("POST", "/models/flights-late/predict", {"rows": rows})
    assert answer.status == 200
    online = [prediction["probability"] for prediction in answer.json["predictions"]]
    assert online == pytest.approx(scored["score"].to_list(), abs=1e-6)


def test_feature_times_are_the_prediction_times(call, scored, flights):
    request = scored.select(flights.project.definitions.label.request).head(5)
    rows = [row | {"scheduled_at": row["scheduled_at"].isoformat()} for row in request.to_dicts()]
    answer = call("POST", "/models/flights-late/predict", {"rows": rows})
    times = [datetime.fromisoformat(p["feature_time"]) for p in answer.json["predictions"]]
    assert times == scored["prediction_time"].head(5).to_list()

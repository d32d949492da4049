"""raypipe.Client and the endpoint that runs: what it returns is what the endpoint answers."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

import raypipe as rp
from raypipe.errors import NotFoundError, RequestError

MODEL = "flights-late"


@pytest.fixture(scope="module")
def client(endpoint):
    with rp.Client(endpoint, MODEL, batch_rows=100) as client:
        yield client


@pytest.fixture
def rows(flight):
    flight["scheduled_at"] = datetime(2013, 11, 27, 12, tzinfo=UTC)
    return [flight | {"dest": dest, "origin": origin} for dest in ("SFO", "LAX", "ORD") for origin in ("EWR", "JFK")]


def test_predictions_are_the_endpoints(client, call, rows):
    asked = [row | {"scheduled_at": row["scheduled_at"].isoformat()} for row in rows]
    direct = call("POST", f"/models/{MODEL}/predict", {"rows": asked})
    assert client.predict(rows).to_json() == direct.json


def test_many_rows(client, rows):
    found = client.predict(rows * 150)
    assert [p.probability for p in found] == [p.probability for p in client.predict(rows)] * 150
    assert len({p.request_id for p in found}) == 9


def test_a_version(client, rows):
    assert client.predict(rows, version=1).model_versions == ("1",)
    with pytest.raises(NotFoundError, match="no version '77'"):
        client.predict(rows, version=77)


def test_a_wrong_field(client, rows):
    with pytest.raises(RequestError) as error:
        client.predict([*rows * 20, rows[0] | {"origin": "XXX"}])
    assert error.value.fields[0]["row"] == 120
    assert error.value.fields[0]["field"] == "origin"


def test_frames_and_rows_have_the_same_predictions(client, rows):
    frame = client.predict_arrow(pl.DataFrame(rows, schema_overrides={"scheduled_at": pl.Datetime("us", "UTC")}))
    assert frame["probability"].to_list() == [p.probability for p in client.predict(rows)]
    assert frame["model_version"].to_list() == ["1"] * len(rows)


def test_an_explanation_sums_to_its_margin(client, rows):
    for prediction in client.explain(rows[:3]):
        reason = prediction.explanation
        assert reason.bias + sum(reason.by_feature.values()) == pytest.approx(reason.margin, abs=1e-5)

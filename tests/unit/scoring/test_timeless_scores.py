"""A table without time is scored: static rows are the same at any time."""

from __future__ import annotations

import random

import polars as pl
import pytest
import yaml

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class People(dy.Schema):
    person = dy.Int64(primary_key=True)
    age = dy.Int64(min=0, max=120)
    mass = dy.Float64(nullable=True, allow_nan=True)
    region = dy.String(nullable=True)
    rich = dy.Bool()


class Regions(dy.Schema):
    region = dy.String(primary_key=True)
    rent = dy.Float64()


people = rp.Source("people", contract=People, static=True)
regions = rp.Source("regions", contract=Regions, static=True)
ask = rp.RequestView("ask", {"age": pl.col("age"), "mass": pl.col("mass")})
place = rp.LatestView("place", source=regions, entity="region", columns=["rent"])
ratio = rp.DerivedView("ratio", {"rent": pl.col("place_rent") / pl.col("age")})
label = rp.Label("rich", spine=people, target=pl.col("rich"), request=["age", "mass", "region"])
"""


@pytest.fixture(scope="module")
def made(scorer, tmp_path_factory):
    folder, dice = tmp_path_factory.mktemp("people"), random.Random(2)
    people = [
        {
            "person": number,
            "age": dice.randrange(18, 80),
            "mass": dice.choice([None, dice.uniform(40, 90)]),
            "region": dice.choice(["north", "south", "nowhere", None]),
            "rich": dice.random() < 0.4,
        }
        for number in range(500)
    ]
    pl.DataFrame(people).write_parquet(folder / "people.parquet")
    pl.DataFrame({"region": ["north", "south"], "rent": [900.0, 700.0]}).write_parquet(folder / "regions.parquet")
    (folder / "features.py").write_text(FEATURES)
    document = {
        "name": "people",
        "sources": {name: {"path": f"{name}.parquet"} for name in ("people", "regions")},
        "split": {"random": {"validation": 0.2, "test": 0.2}, "seed": 7},
        "features": {"plan": "local"},
        "scoring": {"chunk_rows": 90},
        "evaluation": {"gate": ["roc_auc > 0.1"]},
    }
    (folder / "project.yaml").write_text(yaml.safe_dump(document))
    return scorer(folder)


def test_each_row_is_scored_by_its_attributes(made):
    people = pl.read_parquet(made.project.folder / "people.parquet")
    people.drop("rich").write_parquet(made.project.folder / "ask.parquet")
    found = made.score(keep=("person",)).rows
    rent = people["region"].replace_strict({"north": 900.0, "south": 700.0}, default=None, return_dtype=pl.Float64)
    columns = [people["age"].cast(pl.Float64), people["mass"], rent, rent / people["age"]]
    matrix = pl.DataFrame([c.alias(str(at)).fill_null(float("nan")) for at, c in enumerate(columns)])
    expected = made.bundle.model.inplace_predict(matrix.to_numpy().astype("float32"))
    assert found["probability"].to_numpy().tobytes() == expected.tobytes()
    assert found["person"].equals(people["person"])
    assert found["prediction_time"].null_count() == found["feature_time"].null_count() == found.height == 500


def test_a_number_may_be_nan_where_the_contract_says_so(made):
    rows = pl.DataFrame({"age": [30, 30, 130], "mass": [float("nan"), float("inf"), 50.0], "region": ["north"] * 3})
    rows.write_parquet(made.project.folder / "nan.parquet")
    found = made.score("nan.parquet", on_bad_rows="quarantine")
    assert found.rows["row"].to_list() == [0]
    assert dict(found.aside.select("row", "reasons").iter_rows()) == {
        1: ["mass: must be a finite number"],
        2: ["age: must be at most 120"],
    }

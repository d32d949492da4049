"""What cannot be without time, and what would be a leak."""

from __future__ import annotations

import re

import pytest

from raypipe.cli import commands
from raypipe.errors import ConfigurationError, DefinitionError, LeakError
from raypipe.project import load_project

TIME = {"validation_from": "2024-01-22", "test_from": "2024-01-30", "embargo": "1d"}
RANDOM = {"random": {}}
DAYS = 'days = rp.Source("days", contract=Days, event_time="at", delay="1h")\n\nask ='
WINDOW = 'rp.FeatureView("w", source=days, entity="region", windows=["3d"], aggregations={"n": rp.count()})'


@pytest.mark.parametrize(
    ("edits", "kind", "what"),
    [
        pytest.param([("ask =", f"{DAYS}"), ("place = rp", f"w = {WINDOW}\nplace = rp")], DefinitionError, "no time to take a window over", id="window"),
        pytest.param([("ask =", DAYS), ("source=regions", "source=days"), ('["rent"]', '["rain"]'), ('"place_rent"', '"place_rain"')], DefinitionError, "no time at which a row could be the latest", id="latest row"),
        pytest.param([('"job"])', '"job", "person"])'), ('source=regions, entity="region", columns=["rent"]', 'source=people, entity="person", columns=["income"]'), ('"place_rent"', '"place_income"')], LeakError, "looks up the row to predict for", id="own row"),
        pytest.param([('"job"])', '"job", "rich"])')], LeakError, "request column 'rich' gives the target away: both read 'income'", id="the target itself"),
        pytest.param([('"job"])', '"job", "income"])')], LeakError, "request column 'income' gives the target away", id="what the target is made of"),
        pytest.param([("derive={", 'derive={"twice": pl.col("income") * 2, '), ('"job"])', '"job", "twice"])')], LeakError, "request column 'twice' gives the target away", id="made of the same"),
        pytest.param([('"job"])', '"jib"])')], DefinitionError, "no column 'jib'", id="unknown request column"),
        pytest.param([('"age": pl.col("age")', '"age": pl.col("prediction_time").dt.hour()')], DefinitionError, "no column 'prediction_time'", id="prediction time in a view"),
        pytest.param([('"age": pl.col("age")', '"age": pl.col("income")')], LeakError, "not known at prediction time", id="the outcome in a view"),
        pytest.param([("class Regions", "    prediction_time = dy.Int64()\n\n\nclass Regions"), ('"job"])', '"job", "prediction_time"])')], DefinitionError, "two things are called 'prediction_time'", id="a column called like ours"),
    ],
)  # fmt: skip
def test_definitions(people, tmp_path, edits, kind, what):
    with pytest.raises(kind, match=re.escape(what)):
        load_project(people(tmp_path, edits=edits))


def test_columns_that_the_target_is_not_made_of_are_fine(people, tmp_path):
    edits = [("derive={", 'derive={"decade": pl.col("age") // 10, '), ('"job"])', '"job", "decade", "person"])')]
    assert "decade" in load_project(people(tmp_path, edits=edits)).definitions.label.request


@pytest.mark.parametrize(
    ("split", "edits", "what", "where"),
    [
        pytest.param(TIME, [], "a split by time needs a spine with a clock", "split", id="by time"),
        pytest.param({"column": "prat"}, [], "has no column 'prat'", "split.column", id="no such column"),
        pytest.param({"column": "age"}, [], "column 'age' cannot name parts", "split.column", id="a number"),
        pytest.param({"column": "job"}, [], "column 'job' is a request column", "split.column", id="request column"),
        pytest.param(RANDOM, [("dy.Int64(primary_key=True)", "dy.Float64(primary_key=True)")], "cannot be divided at random by primary key column 'person'", "split", id="floats as key"),
        pytest.param({"random": {"test": 0.5, "validation": 0.5}}, [], "leave nothing to train on", "split.random", id="all of it"),
        pytest.param({"random": {"tset": 0.5}}, [], "unknown key 'tset'", "split.random.tset", id="nested typo"),
        pytest.param({"random": {"test": 0}}, [], "greater than 0", "split.random.test", id="no test"),
        pytest.param({"random": 0.3}, [], "valid dictionary", "split.random", id="a number for shares"),
        pytest.param({"column": "part", "sede": 3}, [], "unknown key 'sede'", "split.sede", id="typo"),
        pytest.param({"column": "part", "validation_share": 1}, [], "less than 1", "split.validation_share", id="all for validation"),
        pytest.param({"column": "part", "test_from": "2024-01-30"}, [], "unknown key 'test_from'", "split.test_from", id="a column and times"),
    ],
)  # fmt: skip
def test_splits(people, tmp_path, split, edits, what, where):
    with pytest.raises(ConfigurationError, match=re.escape(what)) as caught:
        load_project(people(tmp_path, split=split, edits=edits))
    assert caught.value.where == f"project.yaml: {where}"


@pytest.mark.parametrize(
    ("key", "known"), [("sede", "did you mean 'seed'?"), ("zzz", "known: column, seed, validation_share")]
)
def test_an_unknown_key_names_those_of_its_own_kind_of_split(people, tmp_path, key, known):
    with pytest.raises(ConfigurationError) as caught:
        load_project(people(tmp_path, split={"column": "part", key: 3}))
    assert caught.value.hint == known


def test_what_has_a_clock_is_split_by_time(shop, tmp_path, split):
    folder = shop(tmp_path, settings={"split": split})
    with pytest.raises(ConfigurationError, match=r"'visits' has a clock, so it is split by time: .* future"):
        load_project(folder)


def test_a_target_encoding_needs_time(people, tmp_path):
    settings = {"transforms": {"features": {"ask_job": {"target_encode": {}}}}}
    with pytest.raises(ConfigurationError, match="this spine has no time"):
        load_project(people(tmp_path, settings=settings))


@pytest.mark.parametrize(
    ("as_of", "span", "option"),
    [("2024-01-01", (None, None), "--as-of"), (None, ("2024-01-01", None), "--from, --to")],
)
def test_options_that_speak_of_time(people, tmp_path, as_of, span, option):
    with pytest.raises(ConfigurationError, match="there is no time in this project") as caught:
        commands.features(people(tmp_path), "local", as_of, span, explain=False)
    assert caught.value.where == option

"""The training set and the online values of a project without time."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b

import polars as pl
import pytest

from raypipe.cli import commands
from raypipe.data.publish import find
from raypipe.data.sources import prepare_source
from raypipe.errors import NotEnoughDataError
from raypipe.evaluation.evaluate import _period
from raypipe.features.build import folder_of
from raypipe.features.online import OnlineState
from raypipe.features.online_build import build_online_state
from raypipe.features.serving_spec import ServingSpec, serving_spec
from raypipe.features.training_set import build_training_set, plan_training_set
from raypipe.project import load_project
from raypipe.serving.rows import read_rows

PARTS = ("train", "validation", "test")
START = datetime(2024, 1, 1, tzinfo=UTC)
RENT = {"north": 900.0, "south": 700.0}


def build(made):
    return build_training_set(made.project, made.sources, "local")


def rows(training_set, part: str) -> list[dict]:
    return pl.concat([pl.read_parquet(file) for file in training_set.files(part)]).sort("__row").to_dicts()


def part_by_hand(person: dict, split: dict) -> str | None:
    """By the documented definition, row by row."""
    share = int(blake2b(f"[7,{person['person']}]".encode(), digest_size=8).hexdigest(), 16) / 2**64
    if "random" in split:
        return "test" if share < 0.2 else "validation" if share < 0.4 else "train"
    if person["part"] == "train" and share < 0.2:
        return "validation"
    return person["part"] if person["part"] in PARTS else None


def by_hand(persons: pl.DataFrame, split: dict, part: str) -> list[dict]:
    return [
        {
            "age": p["age"],
            "region": p["region"],
            "job": p["job"],
            "prediction_time": None,
            "label_known_time": None,
            "ask_age": p["age"],
            "ask_job": p["job"],
            "place_rent": RENT.get(p["region"]),
            "ratio_rent": RENT[p["region"]] / p["age"] if p["region"] in RENT else None,
            "label": p["income"] > 50,
        }
        for p in persons.to_dicts()
        if p["income"] is not None and part_by_hand(p, split) == part
    ]


def test_each_part_holds_its_rows_with_their_features(people, persons, prepared, tmp_path, split):
    training_set = build(prepared(people(tmp_path, split=split)))
    for part in PARTS:
        expected = by_hand(persons, split, part)
        assert [{k: v for k, v in row.items() if k != "__row"} for row in rows(training_set, part)] == expected
        assert training_set.rows(part) == len(expected) > 50
        assert len(training_set.files(part)) > 1


def test_the_manifest_says_how_it_was_split_and_what_was_left_out(people, persons, prepared, tmp_path, split):
    manifest = build(prepared(people(tmp_path, split=split))).manifest
    assert manifest["split"] == (
        "random split: there is no time"
        if "random" in split
        else "split by column part, 0.2 of train at random for validation"
    )
    assert manifest["identity"]["split"] == split | {"seed": 7}
    placed = [part_by_hand(p, split) for p in persons.to_dicts()]
    unlabelled = sum(part is not None and i is None for part, i in zip(placed, persons["income"], strict=True))
    assert manifest["left_out"] == {"outside the split": placed.count(None), "label unknown": unlabelled}


def test_a_partition_is_a_part_and_is_named_like_it(people, prepared, tmp_path, split):
    made = prepared(people(tmp_path, split=split))
    plan = plan_training_set(made.project, made.sources)
    assert [p.name for p in plan.partitions] == list(PARTS)
    build(made)
    for partition in plan.partitions:
        assert find(folder_of(made.project, partition, made.sources, None)).manifest["rows"] == partition.rows


@pytest.mark.parametrize(
    "other",
    [
        {"column": "part", "validation_share": 0.2, "seed": 8},
        {"column": "part", "validation_share": 0.3},
        {"random": {"validation": 0.2, "test": 0.2}},
    ],
)
def test_the_split_is_part_of_every_identity(people, prepared, tmp_path, other):
    one, two = prepared(people(tmp_path / "one")), prepared(people(tmp_path / "two", split=other))
    plans = [plan_training_set(made.project, made.sources) for made in (one, two)]
    assert plans[0].digest != plans[1].digest
    assert not set(plans[0].named["partitions"]) & set(plans[1].named["partitions"])
    assert build(prepared(people(tmp_path / "three"))).digest == plans[0].digest


def test_added_rows_leave_the_old_ones_in_their_parts(people, persons, prepared, tmp_path, split):
    few = build(prepared(people(tmp_path / "few", split=split, people=persons[::2])))
    all_ = build(prepared(people(tmp_path / "all", split=split)))
    for part in PARTS:
        old = by_hand(persons[::2], split, part)
        assert len(rows(few, part)) == len(old) < len(rows(all_, part))
        assert all(row in by_hand(persons, split, part) for row in old)


@pytest.mark.parametrize(
    ("split", "empty", "hint"),
    [
        ({"column": "part"}, "validation", "validation_share"),
        ({"random": {"test": 1e-9}}, "test", "the table is too small"),
    ],
)
def test_an_empty_part_is_named(people, prepared, tmp_path, split, empty, hint):
    made = prepared(people(tmp_path, split=split))
    with pytest.raises(NotEnoughDataError, match=f"no row with a label falls into {empty}") as caught:
        build(made)
    assert hint in caught.value.hint


def test_the_commands_say_that_there_is_no_time(people, tmp_path, capsys):
    folder = people(tmp_path, split={"random": {}})
    document, said = commands.check(folder)
    assert document["split"] == "random split: there is no time"
    assert "\nrandom split: there is no time\n" in said
    document, _ = commands.features(folder, None, None, (None, None), explain=False)
    assert document["split"] == "random split: there is no time"
    assert ", random split: there is no time, " in capsys.readouterr().err
    explained, _ = commands.features(folder, None, None, (None, None), explain=True)
    assert explained["partitions"] == {"wanted": list(PARTS), "missing": [], "batches": 0}


def test_an_evaluation_has_no_period():
    times = pl.DataFrame({"prediction_time": [None, None]}, schema={"prediction_time": pl.Datetime("us", "UTC")})
    assert _period(times) is None
    assert [t[:10] for t in _period(pl.DataFrame({"prediction_time": [START, None]}))] == ["2024-01-01"] * 2


# ---- online ------------------------------------------------------------------------------------

NO_LOOKUP = [
    ('place = rp.LatestView("place", source=regions, entity="region", columns=["rent"])\n', ""),
    ('"place_rent"', '"ask_age"'),
]


@pytest.mark.parametrize("edits", [[], NO_LOOKUP], ids=["with a static table", "of the request alone"])
def test_online_values_are_those_of_the_training_set(people, tmp_path, edits):
    """Without a time in the request; with no row of the online state at all where no view looks anything up."""
    project = load_project(people(tmp_path, edits=edits))
    sources = {name: prepare_source(project, name) for name in project.settings.sources}
    offline = pl.concat([pl.read_parquet(f) for f in build_training_set(project, sources, "local").files("test")])
    spec = ServingSpec.from_json(serving_spec(project.definitions).to_json())
    file = build_online_state(project, sources, START)
    state = OnlineState(file.folder, spec, file.identity)
    asked = read_rows(spec, offline.select(project.definitions.label.request).to_dicts())
    assert state.prediction_times(asked) is None
    with state.snapshot() as known:
        online = known.features(asked, None)
    assert online.equals(offline.select(list(project.definitions.features())))

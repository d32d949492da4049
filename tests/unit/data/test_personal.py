"""No value of a personal column is in what an error, a warning or a manifest says."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import polars as pl
import pytest

from raypipe.errors import RaypipeError
from raypipe.project import load_project

SECRET = "hunter2-Zz9qX"
TAG = 'metadata={"personal": True}'
NOW = datetime(2030, 1, 1, tzinfo=UTC)
USER, BOUGHT = "user = dy.String(nullable=True)", "    bought = dy.Bool(nullable=True)\n"


def tagged(more: str = "", rule: str = "") -> list[tuple[str, str]]:
    rule = f"\n    @dy.rule()\n    def ours(cls):\n        return {rule}\n" if rule else ""
    return [(USER, f"user = dy.String(nullable=True, {more}{TAG})"), (BOUGHT, BOUGHT + rule)]


DERIVED = [
    (
        'derive={"big": pl.col("amount") > 50}',
        'derive={"big": pl.col("amount") > 50, "n": pl.col("user").cast(pl.Int64)}',
    )
]

# What breaks: edits of features.py.
BROKEN = {
    "column rule": tagged('regex="^u[0-9]+$", '),
    "check": tagged("check=lambda c: c.str.len_chars() < 5, "),
    "unique": tagged("unique=True, "),
    "set": [(USER, f"user = dy.Enum(['u1', 'u2'], nullable=True, {TAG})"), ('"user", "shop"]', '"shop"]'), ('entity="user"', 'entity="shop"')],
    "type": [(USER, f"user = dy.Int64(nullable=True, {TAG})")],
    "rule": tagged(rule=f"pl.col('user') != '{SECRET[:3]}' + '{SECRET[3:]}'"),
    "rule that fails": tagged(rule="pl.col('user').cast(pl.Int64) > 0"),
    "rule over rows": tagged(rule="pl.len().over('user') < 2"),
    "rule over rows that fails": tagged(rule="pl.col('user').cast(pl.Int64).sum().over('shop') < 2"),
    "derived column that fails": tagged() + DERIVED,
}  # fmt: skip


def everything(error: RaypipeError) -> str:
    return f"{error}{error.to_json()}{error!r}{error.args}{error.__context__ if not error.__suppress_context__ else ''}{error.__cause__}"


def secretive(tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return tables["visits"].with_columns(user=pl.when(pl.col("visit") % 7 == 0).then(pl.lit(SECRET)).otherwise("user"))


@pytest.mark.parametrize("how", BROKEN)
def test_no_error_says_a_value(spread, visits_of, tables, how):
    with pytest.raises(RaypipeError) as caught:
        visits_of(spread({"0": secretive(tables), "1": secretive(tables).head(5)}, edits=BROKEN[how]), now=NOW)
    assert SECRET not in everything(caught.value)
    assert "visits" in everything(caught.value)


def test_a_personal_column_is_no_partition(spread, visits_of, tables):
    files = {f"user={SECRET}/x": tables["visits"].head(3).drop("user")}
    with pytest.raises(RaypipeError, match="personal column 'user' is a partition column") as caught:
        visits_of(spread(files, edits=tagged()))
    assert SECRET not in everything(caught.value)


@pytest.mark.parametrize("compression", ["uncompressed", "snappy", "zstd"])
def test_no_damage_makes_an_error_say_a_value(spread, visits_of, tables, compression, capfd):
    folder, dice = spread({"0": secretive(tables)}, edits=tagged()), random.Random(3)
    path, refused = folder / "days/0.parquet", 0
    secretive(tables).write_parquet(path, compression=compression, use_pyarrow=False)
    content = path.read_bytes()
    for _ in range(25):
        damaged = bytearray(content)
        for _ in range(dice.randrange(1, 30)):
            damaged[dice.randrange(4, len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        said = ""
        try:
            visits_of(folder, now=NOW)
        except RaypipeError as error:
            said = everything(error)
        refused += bool(said)
        assert SECRET not in said
    assert refused > 5
    out, err = capfd.readouterr()
    assert SECRET not in out + err


def test_what_is_set_aside_names_no_value_outside_of_the_rows(spread, visits_of, tables):
    settings = {"sources.visits.contract": {"on_violation": "quarantine", "max_share": 1}}
    folder = spread({"0": secretive(tables)}, edits=BROKEN["column rule"], settings=settings)
    visits = visits_of(folder)
    assert visits.violations["user|regex"] > 0
    manifests = list((folder / ".raypipe").rglob("*.json"))
    assert len(manifests) == 2
    assert not any(SECRET in path.read_text() for path in manifests)
    assert SECRET not in f"{visits.violations}{visits.warnings}"


def test_the_tagged_columns_are_known(spread):
    source = load_project(spread(edits=tagged())).definitions.source("visits")
    assert source.personal() == ["user"]
    assert load_project(spread()).definitions.source("visits").personal() == []

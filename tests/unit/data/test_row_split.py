"""The split where there is no time: a hash that stays, and parts that rows do not change."""

from __future__ import annotations

import subprocess
from datetime import date, datetime
from hashlib import blake2b
from shutil import which

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import raypipe as rp
from raypipe.data.row_split import part_of_row, row_hash
from raypipe.data.split import in_words
from raypipe.project.split_settings import ColumnSplit, RandomShares, RandomSplit

SHARES = RandomShares(validation=0.2, test=0.1)


def static(**columns: dy.Column) -> rp.Source:
    return rp.Source("people", contract=type("People", (dy.Schema,), columns), static=True)


PEOPLE = static(person=dy.Int64(primary_key=True), part=dy.String(nullable=True))


def parts(frame: pl.DataFrame, split: ColumnSplit | RandomSplit, spine: rp.Source = PEOPLE) -> list[str]:
    return frame.lazy().select(part_of_row(spine, split)).collect().to_series().to_list()


def people(first: int, end: int, part: str | None = "train") -> pl.DataFrame:
    return pl.DataFrame({"person": range(first, end)}).with_columns(pl.lit(part, pl.String).alias("part"))


# ---- the hash ----------------------------------------------------------------------------------

# `printf '[7,42]' | b2sum -l 64` of GNU coreutils.
VALUES = [
    ([7, 42], "[7,42]", 0xF885E8ED68B1CD29),
    ([7, "a"], '[7,"a"]', 0x88DADEDA8B516BF8),
    ([7, "é", 3], '[7,"é",3]', 0x09F7C50FE57A3280),
    ([8, 42], "[8,42]", 0x513148E61EC344E4),
    ([7, True, date(2024, 1, 1)], "[7,true,19723]", 0xD6EF4B94B9F05B80),
]
TYPES = {int: dy.Int64, str: dy.String, bool: dy.Bool, date: dy.Date}


@pytest.mark.parametrize(("key", "text", "expected"), VALUES)
def test_the_hash_is_that_of_b2sum(key, text, expected):
    seed, *values = key
    columns = {f"k{at}": TYPES[type(v)](primary_key=True) for at, v in enumerate(values)}
    frame = pl.DataFrame({f"k{at}": [v] for at, v in enumerate(values)})
    assert frame.select(row_hash(static(**columns), seed)).item() == expected
    if which("b2sum"):
        done = subprocess.run(["b2sum", "-l", "64"], input=text.encode(), capture_output=True, check=True)
        assert int(done.stdout.split()[0], 16) == expected


def test_a_time_counts_its_units_and_an_enum_its_name():
    times = static(at=dy.Datetime(time_unit="us", time_zone="UTC", primary_key=True))
    frame = pl.DataFrame({"at": [datetime(1970, 1, 1, 0, 0, 0, 42)]}, schema={"at": pl.Datetime("us", "UTC")})
    assert frame.select(row_hash(times, 7)).item() == VALUES[0][2]
    kinds = static(kind=dy.Enum(["b", "a"], primary_key=True))
    frame = pl.DataFrame({"kind": ["a"]}, schema={"kind": pl.Enum(["b", "a"])})
    assert frame.select(row_hash(kinds, 7)).item() == VALUES[1][2]


def test_without_a_primary_key_it_is_of_the_rows_number():
    frame = pl.DataFrame({"__row": [42], "x": [1.0]})
    assert frame.select(row_hash(static(x=dy.Float64()), 7)).item() == VALUES[0][2]


# ---- at random ---------------------------------------------------------------------------------


def slow_part(person: int, seed: int, validation: float, test: float) -> str:
    """By the definition, in exact fractions of whole numbers."""
    text = f"[{seed},{person}]".encode()
    share = int(blake2b(text, digest_size=8).hexdigest(), 16) / 2**64
    return "test" if share < test else "validation" if share < test + validation else "train"


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50, unique=True), st.integers(0, 2**31))
def test_parts_are_those_of_the_slow_definition(persons, seed):
    frame = pl.DataFrame({"person": persons}, schema={"person": pl.Int64})
    split = RandomSplit(random=SHARES, seed=seed)
    assert parts(frame, split) == [slow_part(p, seed, 0.2, 0.1) for p in persons]


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_parts_have_their_shares(seed):
    found = pl.Series(parts(people(0, 50_000), RandomSplit(random=SHARES, seed=seed))).value_counts(normalize=True)
    shares = dict(found.rows())
    for part, share in (("train", 0.7), ("validation", 0.2), ("test", 0.1)):
        assert shares[part] == pytest.approx(share, abs=5 * (share * (1 - share) / 50_000) ** 0.5)


def test_added_rows_and_another_order_move_none():
    split = RandomSplit(random=SHARES)
    few, many = people(100, 400), people(0, 2000).sample(fraction=1, shuffle=True, seed=1)
    later = dict(zip(many["person"], parts(many, split), strict=True))
    assert parts(few, split) == [later[person] for person in few["person"]]


def test_another_share_for_validation_moves_no_test_row():
    one, two = (parts(people(0, 3000), RandomSplit(random=RandomShares(validation=v, test=0.1))) for v in (0.1, 0.4))
    assert [p == "test" for p in one] == [p == "test" for p in two]
    assert all(b == "validation" for a, b in zip(one, two, strict=True) if a == "validation")


def test_another_seed_is_another_split():
    one, two = (parts(people(0, 20_000), RandomSplit(random=SHARES, seed=s)) for s in (7, 8))
    both = sum(a == b == "test" for a, b in zip(one, two, strict=True))
    assert both == pytest.approx(20_000 * 0.1 * 0.1, abs=75), "drawn independently"


# ---- by a column -------------------------------------------------------------------------------


def test_a_column_says_the_part_and_anything_else_is_outside():
    said = ["train", "test", "validation", "Train", "", None]
    frame = pl.DataFrame({"person": range(6), "part": said})
    assert parts(frame, ColumnSplit(column="part")) == ["train", "test", "validation", *["outside"] * 3]


def test_an_enum_may_say_it():
    kinds = ["x", "test", "train"]
    spine = static(person=dy.Int64(primary_key=True), part=dy.Enum(kinds))
    frame = pl.DataFrame({"person": range(3), "part": kinds}, schema_overrides={"part": pl.Enum(kinds)})
    assert parts(frame, ColumnSplit(column="part"), spine) == ["outside", "test", "train"]


def test_validation_is_drawn_from_the_train_rows_alone():
    frame = pl.concat([people(0, 20_000), people(20_000, 22_000, "test"), people(22_000, 23_000, None)])
    found = parts(frame, ColumnSplit(column="part", validation_share=0.1))
    drawn = [slow_part(person, 7, 0.0, 0.1) == "test" for person in range(20_000)]
    assert found[:20_000] == ["validation" if one else "train" for one in drawn]
    assert sum(drawn) == pytest.approx(2000, abs=210)
    assert set(found[20_000:22_000]) == {"test"}
    assert set(found[22_000:]) == {"outside"}


def test_it_is_said_that_there_is_no_time():
    assert in_words(RandomSplit(random=SHARES)) == "random split: there is no time"
    assert in_words(ColumnSplit(column="part")) == "split by column part"
    assert "0.1 of train at random" in in_words(ColumnSplit(column="part", validation_share=0.1))

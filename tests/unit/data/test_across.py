from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raypipe as rp
from raypipe.data import across
from raypipe.data.across import Rows, replaced, violations
from raypipe.data.rules import rules_of
from raypipe.errors import DataContractError, DefinitionError
from tests.cases import MORE

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
KEY = pl.col("visit")


class Readings(dy.Schema):
    sensor = dy.String(primary_key=True)
    number = dy.Int64(primary_key=True, nullable=False)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    tag = dy.Int64(nullable=True, unique=True)
    value = dy.Int64(nullable=True)

    @dy.rule()
    def a_sensor_sums_to_at_most_ten(cls):
        return pl.col("value").sum().over("sensor") <= 10

    @dy.rule()
    def below_the_mean_of_all(cls):
        return pl.col("value").fill_null(0) <= pl.col("value").mean() + 5


READINGS = rp.Source("readings", contract=Readings, event_time="at", delay="0s")


@contextmanager
def buckets_of(rows: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(across, "_BUCKET_ROWS", rows)
        yield


def moments(minutes: list[int]) -> pl.Series:
    return pl.Series([NOON + timedelta(minutes=m) for m in minutes], dtype=TIME)


def rows_of(rows: list[dict], scratch) -> Rows:
    schema = {"sensor": pl.String, "number": pl.Int64, "tag": pl.Int64, "value": pl.Int64, "minute": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema).with_row_index("__row").with_columns(pl.col("__row").cast(pl.Int64))
    return Rows(frame.with_columns(moments(frame["minute"].to_list()).alias("__known_time")).lazy(), len(rows), scratch)


rows = st.lists(
    st.fixed_dictionaries(
        {
            "sensor": st.sampled_from("abc"),
            "number": st.integers(0, 3),
            "tag": st.none() | st.integers(0, 9),
            "value": st.none() | st.integers(-9, 20),
            "minute": st.integers(0, 50),
        }
    ),
    min_size=1,
    max_size=12,
)


def by_hand(rows: list[dict]) -> set[tuple[int, str]]:
    """Every (row, rule) that is broken, one row after the other."""
    keys, tags = Counter((r["sensor"], r["number"]) for r in rows), Counter(r["tag"] for r in rows)
    sums: dict[str, int] = defaultdict(int)
    for r in rows:
        sums[r["sensor"]] += r["value"] or 0
    values = [r["value"] for r in rows if r["value"] is not None]
    broken = set()
    for at, r in enumerate(rows):
        broken |= {(at, "primary_key")} if keys[r["sensor"], r["number"]] > 1 else set()
        broken |= {(at, "tag|unique")} if r["tag"] is not None and tags[r["tag"]] > 1 else set()
        broken |= {(at, "a_sensor_sums_to_at_most_ten")} if sums[r["sensor"]] > 10 else set()
        without_answer = not values  # the mean of nothing is null, and null is no answer
        above = not without_answer and (r["value"] or 0) > sum(values) / len(values) + 5
        broken |= {(at, "below_the_mean_of_all")} if without_answer or above else set()
    return broken


@pytest.mark.parametrize("bucket_rows", [1000, 3])
@given(rows=rows)
@settings(max_examples=10 * MORE)
def test_rules_over_rows_match_a_plain_loop(tmp_path_factory, bucket_rows, rows):
    scratch = tmp_path_factory.getbasetemp()
    with buckets_of(bucket_rows):
        found = violations(READINGS, rules_of(READINGS), rows_of(rows, scratch))
    assert set(found.select("__row", "__rule").iter_rows()) == by_hand(rows)
    assert found.height == len(by_hand(rows))


@pytest.mark.parametrize("bucket_rows", [1000, 3])
@given(rows=rows)
@settings(max_examples=10 * MORE)
def test_a_conflict_counts_from_when_it_is_known(tmp_path_factory, bucket_rows, rows):
    """As of any minute, the excluded rows are those that share their key with a row known by then."""
    with buckets_of(bucket_rows):
        found = violations(READINGS, rules_of(READINGS), rows_of(rows, tmp_path_factory.getbasetemp()))
    found = found.filter(pl.col("__rule") == "primary_key")
    for minute in range(0, 51, 5):
        known = [(at, r) for at, r in enumerate(rows) if r["minute"] <= minute]
        keys = Counter((r["sensor"], r["number"]) for _, r in known)
        conflict = {at for at, r in known if keys[r["sensor"], r["number"]] > 1}
        excluded = set(found.filter(pl.col("__excluded_from") <= NOON + timedelta(minutes=minute))["__row"])
        assert excluded & {at for at, _ in known} == conflict


def test_two_keys_with_one_hash_are_two_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(across, "_hash", lambda _: pl.lit(7, pl.UInt64))
    rows = [{"sensor": s, "number": n, "tag": None, "value": 1, "minute": 0} for s, n in ("a1", "a2", "b1", "a2")]
    rows = [r | {"number": int(r["number"])} for r in rows]
    found = violations(READINGS, rules_of(READINGS), rows_of(rows, tmp_path))
    assert found.filter(pl.col("__rule") == "primary_key")["__row"].to_list() == [1, 3]


# ---- corrections -------------------------------------------------------------------------------


CORRECTED = rp.Source("readings", contract=type("Plain", (dy.Schema,), {"sensor": dy.String(primary_key=True), "at": dy.Datetime(time_unit="us", time_zone="UTC")}), event_time="at", delay="0s", corrections=True)  # fmt: skip


@pytest.mark.parametrize("bucket_rows", [1000, 3])
@given(rows=rows)
@settings(max_examples=10 * MORE)
def test_each_row_is_replaced_by_the_next_known_of_its_key(tmp_path_factory, bucket_rows, rows):
    seen = set()
    rows = [r for r in rows if (r["sensor"], r["minute"]) not in seen and not seen.add((r["sensor"], r["minute"]))]
    source = rows_of(rows, tmp_path_factory.getbasetemp())
    with buckets_of(bucket_rows):
        found = replaced(CORRECTED, source, pl.DataFrame(schema={"__row": pl.Int64}))
    expected = {}
    for at, row in enumerate(rows):
        later = [r["minute"] for r in rows if r["sensor"] == row["sensor"] and r["minute"] > row["minute"]]
        expected |= {at: NOON + timedelta(minutes=min(later))} if later else {}
    assert dict(found.iter_rows()) == expected


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"static": True, "event_time": None, "delay": None}, "need a primary key and a clock"),
        (
            {"contract": type("NoKey", (dy.Schema,), {"at": dy.Datetime(time_unit="us", time_zone="UTC")})},
            "need a primary key",
        ),
        ({"contract": Readings}, "column 'tag' cannot be unique"),
    ],
)
def test_corrections_need_a_key_and_a_clock(change, what):
    given = {"contract": CORRECTED.contract, "event_time": "at", "delay": "0s", "corrections": True} | change
    with pytest.raises(DefinitionError, match=what):
        rp.Source("readings", **given)


CORRECTING = [
    ('    known_ahead=["at", "user", "shop"],\n', '    known_ahead=["at", "user", "shop"],\n    corrections=True,\n')
]


def correction(rows: pl.DataFrame, hours: int) -> pl.DataFrame:
    return rows.with_columns(pl.col("known") + timedelta(hours=hours), amount=pl.lit(float(hours)))


@pytest.mark.parametrize("files", [1, 2])
def test_a_correction_replaces_from_when_it_is_known(spread, visits_of, tables, files):
    first = tables["visits"].head(20)
    second, third = correction(first.filter(KEY % 2 == 0), 5), correction(first.filter(KEY % 4 == 0), 9)
    together = {"0": pl.concat([third, first, second])} if files == 1 else {"0": first, "1": pl.concat([third, second])}
    visits = visits_of(spread(together, edits=CORRECTING))
    found = visits.scan().collect()
    known = defaultdict(list)
    for visit, at in found.select("visit", "known").iter_rows():
        known[visit].append(at)
    for visit, at, replaced_at in found.select("visit", "known", "__replaced_at").iter_rows():
        assert replaced_at == min((k for k in known[visit] if k > at), default=None)
    assert (visits.rows, visits.violations) == (20 + second.height + third.height, {})


def test_as_of_knows_no_later_correction(spread, visits_of, tables):
    first = tables["visits"].head(20)
    second = correction(first, 5)
    folder = spread({"0": pl.concat([first, second])}, edits=CORRECTING)
    for as_of in (first["known"].max(), second["known"].sort()[9], second["known"].max()):
        found = visits_of(folder).scan(as_of=as_of).collect()
        later = dict(second.filter(pl.col("known") <= as_of).select("visit", "known").iter_rows())
        for visit, known, replaced_at in found.select("visit", "known", "__replaced_at").iter_rows():
            assert replaced_at == (later.get(visit) if known != later.get(visit) else None)
        assert found["known"].max() <= as_of


def test_a_source_that_was_never_corrected_has_the_column_and_no_overlay(spread, visits_of):
    visits = visits_of(spread(edits=CORRECTING))
    assert visits.overlay is None
    assert visits.scan().collect()["__replaced_at"].null_count() == 600


def test_a_late_correction_changes_the_digest_of_the_part_it_touches(spread, visits_of, tables):
    first = tables["visits"]
    files = {"0": first.head(300), "1": first.tail(300)}
    before = visits_of(spread(files, edits=CORRECTING))
    after = visits_of(spread(files | {"late": correction(first.head(1), 3)}, edits=CORRECTING))
    digests = {p.file: p.digest for p in before.parts}
    changed = [p.file for p in after.parts if p.file in digests and p.digest != digests[p.file]]
    assert changed == ["0.parquet"]
    assert [p.path for p in before.parts if p.file == "0.parquet"] == [
        p.path for p in after.parts if p.file == "0.parquet"
    ]


def test_two_corrections_at_one_time_break_the_key(spread, visits_of, tables):
    first = tables["visits"].head(5)
    with pytest.raises(DataContractError) as caught:
        visits_of(spread({"0": first, "1": first.head(2)}, edits=CORRECTING))
    assert caught.value.got == "primary_key: 4"


# ---- over files --------------------------------------------------------------------------------


def twice(tables) -> dict[str, pl.DataFrame]:
    visits = tables["visits"]
    return {"0": visits.head(300), "1": pl.concat([visits.tail(300), visits.slice(7, 1)])}


def test_a_key_in_two_files_is_refused_with_file_and_row(spread, visits_of, tables):
    with pytest.raises(DataContractError) as caught:
        visits_of(spread(twice(tables)))
    error = caught.value
    assert (error.what, error.got) == ("2 of 601 rows break the contract Visits", "primary_key: 2")
    assert error.where == "source 'visits', file 0.parquet, rows 7 ..."


def test_a_key_in_two_files_is_set_aside_in_both(spread, visits_of, tables):
    visits = visits_of(spread(twice(tables), settings={"sources.visits.contract": {"on_violation": "quarantine"}}))
    number = tables["visits"]["visit"][7]
    assert (visits.rows, visits.violations) == (599, {"primary_key": 2})
    assert visits.scan().select(pl.len()).collect().item() == 599
    assert visits.scan().filter(number == KEY).collect().is_empty()
    aside = pl.read_parquet(visits.quarantine)
    assert aside["visit"].to_list() == [number] * 2
    assert aside["__broken_rules"].to_list() == [["primary_key"]] * 2
    known = tables["visits"]["known"][7]
    assert visits.scan(as_of=known - timedelta(microseconds=1)).filter(number == KEY).collect().is_empty()


def test_a_late_duplicate_changes_nothing_of_what_was_known(spread, visits_of, tables):
    visits, quarantine = tables["visits"], {"sources.visits.contract": {"on_violation": "quarantine"}}
    as_of = visits["known"].max()
    late = visits.slice(7, 1).with_columns(pl.col("known") + timedelta(days=90))
    before = visits_of(spread({"0": visits}, settings=quarantine)).scan(as_of=as_of).collect()
    after = visits_of(spread({"0": visits, "late": late}, settings=quarantine))
    assert after.scan(as_of=as_of).collect().equals(before)
    assert (after.rows, after.scan().collect().height) == (599, 599)
    assert after.scan(as_of=late["known"][0]).collect().height == 599


def test_a_row_number_counts_rows_set_aside_before_it(spread, visits_of, tables):
    files = twice(tables)
    files["0"] = (
        files["0"]
        .with_row_index("n")
        .with_columns(shop=pl.when(pl.col("n") < 3).then(pl.lit("z")).otherwise("shop"))
        .drop("n")
    )
    rules = {"shop|regex": {"on_violation": "quarantine"}}
    with pytest.raises(DataContractError) as caught:
        visits_of(spread(files, settings={"sources.visits.contract": {"rules": rules}}))
    assert caught.value.where == "source 'visits', file 0.parquet, rows 7 ..."


def test_a_group_over_two_files_is_one_group(spread, visits_of, tables):
    rule = "\n    @dy.rule()\n    def a_user_comes_at_most_45_times(cls):\n        return pl.len().over('user') <= 45\n"
    edits = [("    bought = dy.Bool(nullable=True)\n", "    bought = dy.Bool(nullable=True)\n" + rule)]
    counts = tables["visits"]["user"].value_counts().filter(pl.col("count") > 45)
    visits = visits_of(
        spread(edits=edits, settings={"sources.visits.contract": {"on_violation": "quarantine", "max_share": 1}})
    )
    assert visits.violations == {"a_user_comes_at_most_45_times": counts["count"].sum()}
    assert 0 < counts.height < 12
    assert visits.scan().filter(pl.col("user").is_in(counts["user"].implode())).collect().is_empty()

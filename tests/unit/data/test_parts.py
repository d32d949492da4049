from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from raypipe.data.parts import _place, row_base
from raypipe.errors import CorruptFileError, DataContractError, DataError

AS_OF = datetime(2024, 2, 1, tzinfo=UTC)
ROWS = (1 << 27) - 1


def published(folder: Path) -> set[Path]:
    return set(folder.glob(".raypipe/sources/visits/parts/*/manifest.json"))


def us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


# ---- one part a file ---------------------------------------------------------------------------


def test_a_part_says_what_is_in_it(spread, visits_of, tables):
    visits = visits_of(spread())
    assert [p.row_base for p in visits.parts] == sorted(row_base(f"{n}.parquet") for n in range(3))
    for part in visits.parts:
        rows = tables["visits"].slice(int(part.file[0]) * 200, 200)
        assert (part.rows, part.size_bytes) == (200, part.path.stat().st_size)
        assert part.event_us == (us(rows["at"].min()), us(rows["at"].max()))
        assert part.known_us == (us(rows["known"].min()), us(rows["known"].max()))
        found = pl.read_parquet(part.path)
        assert found["__row"].to_list() == [part.row_base + n for n in range(200)]
        assert found["visit"].to_list() == rows["visit"].to_list()


def test_a_late_file_prepares_itself_alone(spread, visits_of, tables):
    visits = tables["visits"]
    folder = spread({"0": visits.head(300)})
    first = visits_of(folder)
    before = published(folder)
    visits.tail(300).write_parquet(folder / "days/late.parquet")
    second = visits_of(folder)
    assert (len(before), len(published(folder) - before)) == (1, 1)
    assert set(first.parts) < set(second.parts)
    assert (second.rows, second.reused, second.digest != first.digest) == (600, False, True)


@pytest.mark.parametrize(
    ("settings", "anew"),
    [
        ({"sources.visits.contract": {"on_violation": "quarantine"}}, 0),
        ({"sources.visits.contract": {"max_share": 0.5}}, 0),
        ({"sources.visits.contract": {"rules": {"amount|min": {"on_violation": "warn"}}}}, 3),
    ],
)
def test_only_a_policy_that_keeps_other_rows_prepares_anew(spread, visits_of, settings, anew):
    visits_of(spread())
    before = published(spread())
    visits_of(spread(settings=settings))
    assert len(published(spread()) - before) == anew


def test_the_same_bytes_under_two_names_are_two_parts(spread, visits_of, tables):
    half = tables["visits"].head(10)
    edits = [("visit = dy.Int64(primary_key=True)", "visit = dy.Int64()")]
    visits = visits_of(spread({"a": half, "b": half}, edits=edits))
    assert visits.rows == visits.scan().select(pl.col("__row").n_unique()).collect().item() == 20


def test_a_prepared_source_crosses_processes(spread, visits_of):
    visits = visits_of(spread())
    again = pickle.loads(pickle.dumps(visits))
    assert again == visits
    assert again.scan().collect().equals(visits.scan().collect())


def test_two_names_with_one_hash_are_refused(spread, visits_of, monkeypatch):
    monkeypatch.setattr("raypipe.data.assemble.row_base", lambda _: 0)
    with pytest.raises(DataError, match="two file names have the same hash") as caught:
        visits_of(spread())
    assert caught.value.got == "0.parquet, 1.parquet"


@pytest.mark.parametrize(
    ("index", "aside", "row"), [(0, [], 0), (0, [0], 1), (2, [1, 2], 4), (1, [5], 1), (3, [0, 4], 5)]
)
def test_row_numbers_in_the_file(index, aside, row):
    assert _place(index, aside) == row


def test_a_prepared_file_that_is_gone_is_named(spread, visits_of):
    part = visits_of(folder := spread()).parts[1]
    part.path.unlink()
    with pytest.raises(DataError, match="a prepared file is gone") as caught:
        visits_of(folder)
    assert caught.value.where == str(part.path)


# ---- partitions --------------------------------------------------------------------------------

DAY = [("bought = dy.Bool(nullable=True)", "bought = dy.Bool(nullable=True)\n    day = {}")]


def edited(dtype: str) -> list[tuple[str, str]]:
    return [(old, new.format(dtype)) for old, new in DAY]


@pytest.mark.parametrize(
    ("dtype", "folder", "value"),
    [
        ("dy.String()", "day=a b%2Fc", "a b/c"),
        ("dy.Int32()", "day=-7", -7),
        ("dy.Date()", "day=2024-01-05", datetime(2024, 1, 5).date()),
        (
            "dy.Datetime(time_unit='us', time_zone='UTC')",
            "day=2024-01-05T06:00:00",
            datetime(2024, 1, 5, 6, tzinfo=UTC),
        ),
        ("dy.Bool()", "day=true", True),
        ("dy.Float64(nullable=True)", "day=__HIVE_DEFAULT_PARTITION__", None),
        ("dy.Enum(['x', 'y'])", "day=y", "y"),
    ],
)
def test_a_partition_column_becomes_a_column(spread, visits_of, tables, dtype, folder, value):
    files = {f"{folder}/x": tables["visits"].head(3)}
    visits = visits_of(spread(files, edits=edited(dtype)))
    assert visits.scan().collect()["day"].to_list() == [value] * 3
    assert visits.parts[0].file == f"{folder}/x.parquet"


def test_a_partition_value_of_another_type_is_refused(spread, visits_of, tables):
    with pytest.raises(DataContractError, match="partition column 'day' has a value that is no Int32") as caught:
        visits_of(spread({"day=monday/x": tables["visits"].head(3)}, edits=edited("dy.Int32()")))
    assert "day=monday/x.parquet" in caught.value.where


@pytest.mark.parametrize("nullable", [True, False])
def test_a_set_is_checked_on_strings(spread, visits_of, tables, nullable):
    """A file of any other writer holds strings where the contract has an Enum."""
    days = ["x", "z", "y", None, "z"]
    policy = {"sources.visits.contract": {"on_violation": "quarantine", "max_share": 1}}
    rows = tables["visits"].head(5).with_columns(pl.Series("day", days))
    visits = visits_of(spread({"0": rows}, edits=edited(f"dy.Enum(['x', 'y'], nullable={nullable})"), settings=policy))
    assert visits.violations == {"day|dtype": 2} | ({} if nullable else {"day|nullability": 1})
    found = visits.scan().collect()["day"]
    assert (found.dtype, found.to_list()) == (pl.Enum(["x", "y"]), ["x", "y", None] if nullable else ["x", "y"])
    assert pl.read_parquet(visits.quarantine)["day"].to_list() == (["z", "z"] if nullable else ["z", None, "z"])


def test_rows_that_were_set_aside_can_come_back_mended(spread, visits_of, tables):
    """What raypipe wrote beside the contract's columns is in no one's way."""
    wrong = tables["visits"].with_columns(amount=pl.when(pl.col("visit") < 3).then(-1.0).otherwise("amount"))
    settings = {"sources.visits.contract": {"on_violation": "quarantine"}}
    aside = pl.read_parquet(visits_of(spread({"0": wrong}, settings=settings)).quarantine)
    mended = aside.with_columns(amount=pl.lit(1.0))
    visits = visits_of(spread({"0": wrong, "mended": mended}, settings=settings))
    assert (visits.rows, visits.violations) == (600, {"amount|min": 3})
    assert sorted(visits.scan().collect()["visit"]) == list(range(600))


# ---- files that go wrong -----------------------------------------------------------------------


def damage(path: Path, where: str) -> None:
    content = bytearray(path.read_bytes())
    if where == "pages":
        content[200:1200] = bytes(1000)
    else:
        content = content[: len(content) // 2]
    path.write_bytes(content)


@pytest.mark.parametrize("where", ["pages", "footer"])
def test_a_corrupt_file_among_many_is_named(spread, visits_of, where):
    damage((folder := spread()) / "days/1.parquet", where)
    with pytest.raises(CorruptFileError, match="no readable Parquet") as caught:
        visits_of(folder)
    assert caught.value.where == str(folder / "days/1.parquet")
    assert caught.value.got


@pytest.mark.parametrize("where", ["pages", "footer"])
def test_a_corrupt_file_is_left_out_where_the_policy_says_so(spread, visits_of, where):
    damage(
        (folder := spread(settings={"sources.visits.contract.on_corrupt_file": "quarantine"})) / "days/1.parquet", where
    )
    for reused in (False, True):
        visits = visits_of(folder)
        assert (visits.rows, len(visits.parts), visits.reused) == (400, 2, reused)
        assert [f["name"] for f in visits.snapshot["corrupt"]] == ["1.parquet"]
        assert visits.warnings == [f"corrupt file 1.parquet was left out: {visits.snapshot['corrupt'][0]['problem']}"]


def test_nothing_but_corrupt_files_is_an_error(spread, visits_of, tables):
    settings = {"sources.visits.contract.on_corrupt_file": "quarantine"}
    damage((folder := spread({"0": tables["visits"]}, settings=settings)) / "days/0.parquet", "footer")
    with pytest.raises(DataError, match="source 'visits' has no readable file"):
        visits_of(folder)


@pytest.mark.parametrize("change", ["rewritten", "truncated", "removed", "same size and time"])
def test_a_file_that_changes_while_it_is_read_is_named(spread, visits_of, monkeypatch, change):
    import os

    from raypipe.data import parts

    path = (folder := spread()) / "days/1.parquet"
    write = parts._write

    def meddle(source, rows, kept, base, attempt):
        found = write(source, rows, kept, base, attempt)
        if base == row_base("1.parquet"):
            status, content = path.stat(), bytearray(path.read_bytes())
            if change == "rewritten":
                path.write_bytes((folder / "days/2.parquet").read_bytes())
            elif change == "truncated":
                path.write_bytes(content[:100])
            elif change == "removed":
                path.unlink()
            else:
                content[10] ^= 1
                path.write_bytes(content)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return found

    monkeypatch.setattr(parts, "_write", meddle)
    with pytest.raises(DataError) as caught:
        visits_of(folder)
    assert caught.value.where == str(path)
    assert caught.value.what == ("a file is gone" if change == "removed" else "a file changed while it was read")
    assert len(published(folder)) == 2


# ---- scan --------------------------------------------------------------------------------------


def test_as_of_numbers_the_rows_known_by_then(spread, visits_of, tables):
    visits = visits_of(spread())
    found = visits.scan(as_of=AS_OF, columns=["__row", "visit"]).collect()
    expected = []
    for part in visits.parts:
        rows = tables["visits"].slice(int(part.file[0]) * 200, 200)
        known = [visit for visit, known in rows.select("visit", "known").iter_rows() if known <= AS_OF]
        expected += [(part.row_base + n, visit) for n, visit in enumerate(known)]
    assert found.rows() == expected
    assert 0 < found.height < 600


def test_late_rows_of_a_file_change_nothing_of_what_was_known(spread, visits_of, tables):
    visits = tables["visits"]
    old = visits_of(spread({"0": visits.filter(pl.col("known") <= AS_OF)})).scan(as_of=AS_OF).collect()
    new = visits_of(spread({"0": visits})).scan(as_of=AS_OF).collect()
    assert old.equals(new)


def test_parts_can_be_scanned_one_by_one(spread, visits_of):
    visits = visits_of(spread())
    assert visits.scan(parts=[]).collect().schema == visits.scan().collect_schema()
    pieces = [visits.scan(parts=[part], as_of=AS_OF).collect() for part in visits.parts]
    assert pl.concat(pieces).equals(visits.scan(as_of=AS_OF).collect())


def test_predicates_and_projections_reach_the_files(spread, visits_of):
    plan = visits_of(spread()).scan().filter(pl.col("visit") > 3).select("visit").explain()
    assert "SELECTION" in plan
    assert "PROJECT 1/" in plan
    assert "FILTER" not in plan

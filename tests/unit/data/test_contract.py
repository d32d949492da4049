from __future__ import annotations

import hashlib
import shutil

import polars as pl
import pytest

from raypipe.data.sources import prepare_source
from raypipe.errors import DataContractError, DataError
from raypipe.project import load_project

KEY = pl.col("visit")
TIME = pl.Datetime("us", "UTC")
DTYPES = {"amount": pl.Float64, "shop": pl.String, "at": TIME, "known": TIME, "visit": pl.Int64}


def broken(column: str, value: object, numbers: tuple[int, ...] = (3,)) -> dict[str, list[pl.Expr]]:
    """The visits with `value` in `column` of some rows."""
    dtype = DTYPES[column]
    return {"visits": [pl.when(KEY.is_in(numbers)).then(pl.lit(value, dtype)).otherwise(column).alias(column)]}


def refusal(kind, folder, source: str = "visits"):
    with pytest.raises(kind) as caught:
        prepare_source(load_project(folder), source)
    return caught.value


def policy(on_violation: str, max_share: float = 0.01) -> dict[str, object]:
    return {"sources.visits.contract": {"on_violation": on_violation, "max_share": max_share}}


# ---- the real rows -----------------------------------------------------------------------------


def test_the_1048_mph_row_is_set_aside(flights):
    weather = flights.sources["weather"]
    assert (weather.rows, weather.violations) == (26_114, {"wind_speed|max": 1})
    aside = pl.read_parquet(weather.quarantine)
    assert aside["wind_speed"].round(2).to_list() == [1048.36]
    assert aside["__broken_rules"].to_list() == [["wind_speed|max"]]
    assert weather.scan().select(pl.len(), pl.col("wind_speed").max() < 100).collect().row(0) == (26_114, True)


def test_accepted_and_quarantined_rows_are_the_file(flights):
    weather = flights.sources["weather"]
    temperatures = pl.read_parquet(flights.project.folder / "data/weather.parquet")["temp"].to_list()
    aside = pl.read_parquet(weather.quarantine)
    accepted = weather.scan().select("__row", "temp").collect()
    assert (accepted["__row"] - accepted["__row"][0]).to_list() == list(range(26_114))
    both = accepted["temp"].to_list()
    both.insert(aside["__file_row"].item(), aside["temp"].item())
    assert both == temperatures


def test_every_other_table_keeps_its_contract(flights):
    rows = {"flights": 336_776, "planes": 3_322, "airports": 1_458, "airlines": 16}
    assert {name: flights.sources[name].rows for name in rows} == rows
    assert all(flights.sources[name].violations == {} and flights.sources[name].quarantine == [] for name in rows)


@pytest.mark.parametrize(
    "change", [("on_violation: quarantine", "on_violation: refuse"), ("max_share: 0.001", "max_share: 0.00001")]
)
def test_the_1048_mph_row_is_refused(flights_folder, tmp_path, change):
    shutil.copy(flights_folder / "features.py", tmp_path)
    text = (flights_folder / "project.yaml").read_text().replace("data/", f"{flights_folder}/data/")
    assert change[0] in text
    (tmp_path / "project.yaml").write_text(text.replace(*change))
    error = refusal(DataContractError, tmp_path, "weather")
    assert error.exit_code == 4
    assert "1 of 26115 rows break the contract Weather" in error.what
    assert "wind_speed|max: 1" in error.got


# ---- what a contract refuses -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("amount", -1.0, "amount|min"),
        ("shop", "z", "shop|regex"),
        ("shop", None, "shop|nullability"),
        ("at", None, "at|nullability"),
        ("visit", None, "visit|nullability"),
        ("known", None, "known|nullability"),  # the contract lets it be null, a clock may not
    ],
)
def test_a_broken_rule_is_named_with_row_and_count(shop, tmp_path, column, value, rule):
    error = refusal(DataContractError, shop(tmp_path, tables=broken(column, value)))
    assert (error.what, error.exit_code) == ("1 of 600 rows break the contract Visits", 4)
    assert f"{rule}: 1" in error.got
    source, row = error.where.split(", rows ")
    assert source == "source 'visits', file visits.parquet"
    assert pl.read_parquet(tmp_path / "visits.parquet")[int(row), column] == value


def test_duplicate_keys_are_refused_together(shop, tables, tmp_path):
    twice = {"visits": pl.concat([tables["visits"], tables["visits"].filter(KEY == 3)])}
    error = refusal(DataContractError, shop(tmp_path, tables=twice))
    assert error.what.startswith("2 of 601 rows")
    assert "primary_key: 2" in error.got


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [("amount", -1.0, "amount|min"), ("known", None, "known|nullability"), ("at", None, "at|nullability")],
)
def test_quarantine_sets_aside_and_goes_on(shop, tmp_path, column, value, rule):
    folder = shop(tmp_path, tables=broken(column, value, (3, 5)), settings=policy("quarantine"))
    visits = prepare_source(load_project(folder), "visits")
    assert (visits.rows, visits.violations) == (598, {rule: 2})
    assert sorted(pl.read_parquet(visits.quarantine)["visit"].to_list()) == [3, 5]
    assert visits.scan().filter(KEY.is_in([3, 5])).collect().is_empty()
    assert visits.scan().select(pl.col("__event_time", "__known_time").null_count()).collect().row(0) == (0, 0)


@pytest.mark.parametrize(("share", "refused"), [(2 / 600, False), (1.9 / 600, True), (0, True), (1, False)])
def test_quarantine_goes_up_to_max_share(shop, tmp_path, share, refused):
    folder = shop(tmp_path, tables=broken("amount", -1.0, (3, 5)), settings=policy("quarantine", share))
    if refused:
        assert "at most a share" in refusal(DataContractError, folder).expected
    else:
        assert prepare_source(load_project(folder), "visits").rows == 598


def test_warn_keeps_the_rows_and_says_so(shop, prepared, tmp_path):
    visits = prepared(shop(tmp_path, tables=broken("amount", -1.0), settings=policy("warn"))).sources["visits"]
    assert (visits.rows, visits.violations, visits.quarantine) == (600, {"amount|min": 1}, [])
    assert visits.scan().filter(KEY == 3).select("amount", "big").collect().rows() == [(-1.0, False)]


@pytest.mark.parametrize("column", ["at", "known"])
def test_warn_cannot_keep_a_row_without_a_clock(shop, tmp_path, column):
    folder = shop(tmp_path, tables=broken(column, None), settings=policy("warn"))
    assert f"{column}|nullability" in refusal(DataContractError, folder).got


def test_warn_cannot_keep_two_static_rows_of_one_entity(shop, tables, tmp_path):
    twice = {"shops": pl.concat([tables["shops"], tables["shops"].head(1)])}
    folder = shop(tmp_path, tables=twice, settings={"sources.shops.contract": {"on_violation": "warn"}})
    assert "primary_key" in refusal(DataContractError, folder, "shops").got


def test_a_missing_column_is_named_with_its_file(shop, tables, tmp_path):
    error = refusal(
        DataContractError, shop(tmp_path, tables={"visits": tables["visits"].rename({"amount": "amounts"})})
    )
    assert error.what == "1 columns of the contract are missing: amount"
    assert (error.where, error.hint) == ("source 'visits', file visits.parquet", "did you mean 'amounts'?")


def test_a_wrong_type_is_named_with_got_and_expected(shop, tables, tmp_path):
    error = refusal(
        DataContractError,
        shop(tmp_path, tables={"visits": tables["visits"].with_columns(pl.col("amount").cast(pl.Float32))}),
    )
    assert (error.what, error.got, error.expected) == ("column 'amount' has the wrong type", "Float32", "Float64")
    assert "file visits.parquet" in error.where
    assert "Visits.amount" in error.hint


def test_a_time_without_a_zone_is_a_wrong_type(shop, tables, tmp_path):
    error = refusal(
        DataContractError,
        shop(tmp_path, tables={"visits": tables["visits"].with_columns(pl.col("at").dt.replace_time_zone(None))}),
    )
    assert "column 'at' has the wrong type" in error.what


def test_more_columns_than_the_contract_are_left_out(shop, tables, prepared, tmp_path):
    visits = prepared(shop(tmp_path, tables={"visits": tables["visits"].with_columns(secret=pl.lit("x"))})).sources[
        "visits"
    ]
    assert "secret" not in visits.scan().collect_schema()


def test_a_static_source_may_be_empty(shop, tables, prepared, tmp_path):
    assert prepared(shop(tmp_path, tables={"shops": tables["shops"].head(0)})).sources["shops"].rows == 0


# ---- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 7, 500, 0.5, 0.999])
def test_a_truncated_file_is_named(shop, tmp_path, keep):
    file = shop(tmp_path) / "visits.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    error = refusal(DataError, tmp_path)
    assert (error.where, error.what) == (str(file), "a file is no readable Parquet")


def test_damaged_pages_are_found_before_they_are_used(shop, tmp_path):
    file = shop(tmp_path) / "visits.parquet"
    content = bytearray(file.read_bytes())
    content[200:1200] = bytes(1000)
    file.write_bytes(content)
    assert refusal(DataError, tmp_path).where == str(file)


@pytest.mark.parametrize("path", ["nothing.parquet", "no/folder", "*.nothing", "empty"])
def test_a_missing_path_is_named_as_it_stands_in_project_yaml(shop, tmp_path, path):
    folder = shop(tmp_path, settings={"sources.visits.path": path})
    (folder / "empty").mkdir()
    error = refusal(DataError, folder)
    assert (error.where, error.got) == ("project.yaml: sources.visits.path", path)
    assert str(tmp_path) in error.hint


@pytest.mark.parametrize(("path", "below"), [("days", ""), ("days/*.parquet", ""), ("day?/*.parquet", "days/")])
def test_a_folder_or_a_glob_gives_each_file_rows_of_its_own(shop, tables, prepared, tmp_path, path, below):
    folder = shop(tmp_path, settings={"sources.visits.path": path})
    (folder / "days").mkdir()
    for at in range(3):
        tables["visits"].slice(at * 200, 200).write_parquet(folder / f"days/{at}.parquet")
    visits = prepared(folder).sources["visits"]
    assert [f["rows"] for f in visits.snapshot["files"]] == [200, 200, 200]
    found = visits.scan().select("__row", "visit").collect()
    assert found["__row"].is_sorted()
    expected = {}
    for at in range(3):
        hashed = hashlib.sha256(f"{below}{at}.parquet".encode()).digest()
        base = int.from_bytes(hashed, "big") >> (256 - 36) << 27
        expected |= {base + n: visit for n, visit in enumerate(tables["visits"]["visit"].slice(at * 200, 200))}
    assert dict(found.rows()) == expected


# ---- identity ----------------------------------------------------------------------------------


def test_prepared_rows_are_reused(shop, tmp_path):
    project = load_project(shop(tmp_path))
    first, again = prepare_source(project, "visits"), prepare_source(project, "visits")
    assert (first.reused, again.reused, again.parts) == (False, True, first.parts)


@pytest.mark.parametrize(
    "change",
    [
        {"edits": [('pl.col("amount") > 50', 'pl.col("amount") > 51')]},
        {"edits": [("nullable=True, min=0)", "nullable=True, min=-1)")]},
        {"settings": policy("warn")},
    ],
)
def test_another_definition_or_policy_is_prepared_anew(shop, tmp_path, change):
    one, two = (
        prepare_source(load_project(shop(tmp_path / name, **kw)), "visits")
        for name, kw in (("one", {}), ("two", change))
    )
    assert one.digest != two.digest


def test_other_bytes_are_prepared_anew(shop, tmp_path):
    one = prepare_source(load_project(shop(tmp_path)), "visits")
    two = prepare_source(load_project(shop(tmp_path, tables=broken("amount", 7.25))), "visits")
    assert one.digest != two.digest
    assert one.scan().filter(KEY == 3).collect()["amount"].item() != 7.25
    assert two.scan().filter(KEY == 3).collect()["amount"].item() == 7.25

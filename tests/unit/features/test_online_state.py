"""What the online state does with rows as they come: cases by hand. Values are checked against the join elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from raypipe.errors import BundleError, ConfigurationError, DataContractError
from raypipe.features.online import OnlineState
from raypipe.features.online_build import QUARANTINE, IngestResult, advance, build_online_state, ingest
from raypipe.features.online_plan import state_folder, state_plan
from raypipe.features.online_store import environment
from raypipe.features.serving_spec import serving_spec
from raypipe.project import load_project

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Sales(dy.Schema):
    KEY
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    known = dy.Datetime(time_unit="us", time_zone="UTC")
    shop = dy.String(nullable=True)
    price = dy.Float64(nullable=True, min=0, allow_nan=True, allow_inf=True)
    sold = dy.Bool(nullable=True)


class Shops(dy.Schema):
    shop = dy.String(primary_key=True)
    city = dy.String()


sales = rp.Source("sales", contract=Sales, event_time="at", known_time="known", known_ahead=["at", "shop"], corrections=CORRECTIONS)
shops = rp.Source("shops", contract=Shops, static=True)
other = rp.Source("other", contract=Shops, static=True)
few = {"rows": rp.count(), "sum": rp.sum("price"), "last": rp.last("price")}
window = rp.FeatureView("w", source=sales, entity="shop", windows=["1h", "13h"], aggregations=few)
exact = rp.FeatureView("e", source=sales, entity="shop", windows=["90m"], aggregations={"rows": rp.count()}, hop="1us")
newest = rp.LatestView("newest", source=sales, entity="shop", columns=["price"])
fresh = rp.LatestView("fresh", source=sales, entity="shop", columns=["price"], max_age="2h")
place = rp.LatestView("place", source=shops, entity="shop", columns=["city"])
label = rp.Label("sold", spine=sales, prediction_time=pl.col("at"), target=pl.col("sold"))
"""
SETTINGS = """\
name: sales
sources: {sales: {path: sales.parquet, contract: {on_violation: POLICY, max_share: 0.5}}, shops: {path: shops.parquet}, other: {path: shops.parquet}}
split: {validation_from: 2024-02-01, test_from: 2024-03-01, embargo: 2d}
evaluation: {gate: [roc_auc > 0.1]}
"""
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SCHEMA = {
    "at": pl.Datetime("us", "UTC"),
    "known": pl.Datetime("us", "UTC"),
    "shop": pl.String,
    "price": pl.Float64,
    "sold": pl.Boolean,
}
SHOPS = pl.DataFrame({"shop": ["a", "b"], "city": ["Bonn", "Ulm"]})


class Sale(dict[str, Any]):
    """A row; times are minutes after noon."""

    def __init__(
        self, number: int, at: float = 0, known: float | None = None, shop: str | None = "a", price: float | None = 1.0
    ) -> None:
        moments = {"at": NOON + at * MINUTE, "known": NOON + (at if known is None else known) * MINUTE}
        super().__init__(number=number, **moments, shop=shop, price=price, sold=True)


class Shop:
    """A small project with an online state."""

    def __init__(self, folder: Path, *, keyed: bool = True, corrections: bool = False, policy: str = "refuse") -> None:
        folder.mkdir(exist_ok=True)
        key = "number = dy.Int64(primary_key=True)" if keyed else ""
        self.schema = ({"number": pl.Int64} if keyed else {}) | SCHEMA
        (folder / "features.py").write_text(FEATURES.replace("KEY", key).replace("CORRECTIONS", str(corrections)))
        (folder / "project.yaml").write_text(SETTINGS.replace("POLICY", policy))
        self.project = load_project(folder)

    def frame(self, *rows: Sale) -> pl.DataFrame:
        return pl.DataFrame([{name: row[name] for name in self.schema} for row in rows], schema=self.schema)

    def ingest(self, *rows: Sale, at: float = 0) -> IngestResult:
        return ingest(self.project, "sales", self.frame(*rows), NOON + at * MINUTE)

    def advance(self, at: float) -> None:
        advance(self.project, NOON + at * MINUTE)

    @property
    def folder(self) -> Path:
        return state_folder(self.project)

    def open(self) -> OnlineState:
        return OnlineState(self.folder, serving_spec(self.project.definitions), state_plan(self.project).identity)

    def ask(self, shop: str | None = "a", at: float = 0) -> dict[str, Any]:
        state, rows = (
            self.open(),
            pl.DataFrame(
                {"at": [NOON + at * MINUTE], "shop": [shop]}, schema_overrides={"at": SCHEMA["at"], "shop": pl.String}
            ),
        )
        with state.snapshot() as known:
            return known.features(rows, known.feature_times(state.prediction_times(rows))).row(0, named=True)

    def keys(self, kind: str) -> int:
        """How many keys of a kind there are in the store."""
        with environment(self.folder).begin() as transaction, transaction.cursor() as cursor:
            return sum(bytes(key).startswith(kind.encode()) for key in cursor.iternext(values=False))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def corrected(tmp_path: Path) -> Shop:
    return Shop(tmp_path, corrections=True)


def fates(result: IngestResult) -> dict[str, int]:
    """The counts that are not zero."""
    return {name: count for name, count in result.to_json().items() if count and name != "as_of"}


def contents(made: Shop) -> dict[bytes, bytes]:
    with environment(made.folder).begin() as transaction, transaction.cursor() as cursor:
        return {bytes(key): bytes(value) for key, value in cursor}


# ---- exactly once ------------------------------------------------------------------------------


def test_a_batch_that_comes_again_changes_nothing(shop):
    batch = [Sale(1), Sale(2, -5, price=2.0), Sale(3, 9, 30)]
    assert fates(shop.ingest(*batch)) == {"applied": 2, "pending": 1}
    before = contents(shop)
    assert fates(shop.ingest(*batch)) == {"duplicates": 3}
    after = contents(shop)
    assert {key for key in before | after if before.get(key) != after.get(key)} == {b"m"}
    assert shop.ask()["w_1h_sum"] == 3.0


def test_a_row_that_comes_again_with_other_values_is_refused(shop):
    shop.ingest(Sale(1))
    before = contents(shop)
    with pytest.raises(DataContractError, match="1 rows came before with other values"):
        shop.ingest(Sale(2), Sale(1, price=9.0))
    with pytest.raises(DataContractError, match="1 rows came before with other values"):
        shop.ingest(Sale(2), Sale(2, price=9.0))
    assert contents(shop) == before


def test_without_a_key_equal_rows_of_one_batch_all_count_and_of_another_none(tmp_path):
    shop = Shop(tmp_path, keyed=False)
    assert fates(shop.ingest(Sale(1), Sale(1), Sale(1, price=2.0))) == {"applied": 3}
    assert fates(shop.ingest(Sale(1), Sale(1), Sale(1, price=3.0))) == {"applied": 1, "duplicates": 2}
    assert shop.ask()["w_1h_sum"] == 7.0


def test_a_latest_row_is_known_again_after_its_id_is_forgotten(shop):
    shop.ingest(Sale(1, price=1.0), Sale(2, price=2.0))
    shop.advance(60 * 24)
    assert shop.keys("s") == 0
    assert fates(shop.ingest(Sale(1, price=1.0), at=60 * 24)) == {"applied": 1}
    assert shop.ask(at=60 * 24)["newest_price"] == 2.0
    with pytest.raises(DataContractError, match="came before with other values"):
        shop.ingest(Sale(1, price=7.0), at=60 * 24)


# ---- times -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "rows"), [(0, 0), (4, 0), (5, 1), (64, 1), (65, 1), (69, 1), (70, 0)])
def test_a_row_known_ahead_counts_from_its_own_time(shop, at, rows):
    shop.ingest(Sale(1, 5, -60))
    assert shop.ask(at=at)["w_1h_rows"] == rows


def test_rows_after_the_request_in_its_hop_do_not_count(shop):
    shop.ingest(Sale(1, 1, -9, price=1.0), Sale(2, 2, -9, price=2.0), Sale(3, 3, -9, price=None))
    assert [shop.ask(at=at)["w_1h_sum"] for at in (0, 1, 1.5, 2, 3)] == [0.0, 1.0, 1.0, 3.0, 3.0]
    assert [shop.ask(at=at)["w_13h_rows"] for at in (0, 1, 1.5, 2, 3)] == [0, 1, 1, 2, 3]
    assert [shop.ask(at=at)["w_1h_last"] for at in (0, 1, 3)] == [None, 1.0, 2.0]


def test_a_pending_row_counts_once_it_is_known(shop):
    shop.ingest(Sale(1, -5, 10))
    assert shop.ask(at=20)["w_1h_rows"] == 0
    assert fates(shop.ingest(Sale(2, 9, 10), at=10)) == {"applied": 1, "released": 1}
    assert shop.ask(at=10)["w_1h_rows"] == 2
    assert shop.keys("p") == 0


def test_many_pending_rows_are_released_as_each_is_known(shop):
    shop.ingest(*(Sale(n, -5, n) for n in range(1, 3000)))
    for at in (1, 1500, 1501, 2998, 2999):
        shop.advance(at)
        assert shop.ask()["newest_price"] == 1.0
        assert shop.ask(at=-5)["w_13h_rows"] == (at if at < 780 else 0)


def test_the_watermark_never_goes_back(shop):
    shop.ingest(Sale(1), at=30)
    assert shop.ingest(Sale(2, -3, 20), at=10).as_of == (NOON + 30 * MINUTE).isoformat()
    assert shop.ask()["w_1h_rows"] == 2


def test_a_question_before_the_watermark_is_answered_as_of_it(shop):
    shop.ingest(Sale(1, 20), at=30)
    assert shop.ask(at=0)["w_1h_rows"] == 1


def test_ties_go_by_the_order_of_ingestion(shop):
    shop.ingest(Sale(9, price=9.0), Sale(1, price=1.0))
    shop.ingest(Sale(5, price=5.0))
    assert shop.ask()["w_1h_last"] == shop.ask()["newest_price"] == 5.0


def test_null_entities_leave_no_trace(shop):
    shop.ingest(Sale(1, shop=None))
    assert (shop.keys("c"), shop.keys("r")) == (0, 0)
    assert shop.ask(None)["w_1h_rows"] == 0


# ---- corrections -------------------------------------------------------------------------------


@pytest.mark.parametrize("backwards", [False, True])
def test_a_correction_replaces_whenever_it_comes(corrected, backwards):
    versions = [Sale(1, -30, -20, price=1.0), Sale(1, -9, -8, price=2.0), Sale(1, -40, -7, "b", 4.0)]
    for version in reversed(versions) if backwards else versions:
        corrected.ingest(version)
    a, b = corrected.ask("a"), corrected.ask("b")
    assert (a["w_1h_rows"], a["w_13h_rows"], a["newest_price"], a["e_90m_rows"]) == (0, 0, None, 0)
    assert (b["w_1h_sum"], b["w_13h_sum"], b["newest_price"], b["fresh_price"]) == (4.0, 4.0, 4.0, 4.0)


def test_a_correction_counts_from_its_own_known_time(corrected):
    assert fates(corrected.ingest(Sale(1, -30, -20, price=1.0), Sale(1, -30, 10, price=5.0))) == {
        "applied": 1,
        "pending": 1,
    }
    assert corrected.ask()["w_1h_sum"] == 1.0
    corrected.advance(10)
    assert corrected.ask()["w_1h_sum"] == 5.0


def test_of_versions_in_one_batch_the_last_known_counts(corrected):
    assert fates(corrected.ingest(Sale(1, 0, -1, price=2.0), Sale(1, 0, -2, price=1.0))) == {
        "applied": 1,
        "replaced": 1,
    }
    assert corrected.ask()["w_1h_sum"] == 2.0


def test_a_correction_out_of_all_windows_takes_the_row_out(corrected):
    corrected.ingest(Sale(1, -30), Sale(2, -50, price=3.0))
    assert fates(corrected.ingest(Sale(1, -60 * 24 * 30, -1))) == {"applied": 1}
    assert corrected.ask()["w_1h_rows"] == 1
    assert corrected.ask()["newest_price"] == 3.0
    assert fates(corrected.ingest(Sale(1, -29, -29))) == {"replaced": 1}
    assert corrected.ask()["w_1h_rows"] == 1


# ---- compaction --------------------------------------------------------------------------------


def test_what_no_view_can_see_goes(shop):
    shop.ingest(*(Sale(n, -n, price=float(n)) for n in range(200)), Sale(999, -1, shop="b"))
    assert shop.keys("r") > 100
    shop.advance(60 * 24)
    assert {kind: shop.keys(kind) for kind in "rsukp"} == dict.fromkeys("rsukp", 0)
    assert shop.keys("c") == 2  # the newest row of each shop
    assert [shop.ask(name, 60 * 24)["newest_price"] for name in "ab"] == [0.0, 1.0]


@pytest.mark.parametrize("corrections", [False, True])
def test_a_state_that_has_moved_is_the_state_that_is_made_at_once(tmp_path, corrections):
    """The same bytes: neither more nor less is kept than at first."""
    rows = [Sale(n, 7 * n, 7 * n + n % 50, "abc"[n % 3], float(n)) for n in range(300)]
    rows += [Sale(n, 7 * n, 7 * n + 51, "abc"[n % 3], 1e9) for n in range(0, 300, 4)] if corrections else []
    moved, at_once = (Shop(tmp_path / name, corrections=corrections) for name in ("moved", "once"))
    for start in range(0, len(rows), 50):
        moved.ingest(*rows[start : start + 50], at=4 * start)
    moved.advance(2200)
    at_once.ingest(*rows, at=2200)
    mine, right = contents(moved), contents(at_once)
    assert len(right) > 100
    assert mine.keys() == right.keys()
    # But for the meta record, and where in the store an old version was.
    assert {key[:1] for key in right if mine[key] != right[key]} <= ({b"m", b"k"} if corrections else {b"m"})


# ---- what comes in -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["refuse", "quarantine", "warn"])
def test_rows_that_break_the_contract(tmp_path, policy):
    shop = Shop(tmp_path, policy=policy)
    batch = [Sale(1, price=-1.0), Sale(2, price=2.0), Sale(3, price=3.0)]
    if policy == "refuse":
        with pytest.raises(DataContractError, match="1 of 3 rows break the contract Sales"):
            shop.ingest(*batch)
        assert not shop.folder.exists()
        return
    result = shop.ingest(*batch)
    aside = sorted((shop.folder / QUARANTINE).glob("*.parquet"))
    assert shop.ask()["w_1h_sum"] == (5.0 if policy == "quarantine" else 4.0)
    assert (result.applied, result.quarantined, len(aside)) == ((2, 1, 1) if policy == "quarantine" else (3, 0, 0))
    for path in aside:
        assert pl.read_parquet(path).select("number", "__broken_rules").rows() == [(1, ["price|min"])]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.drop("price"), "1 columns of the contract are missing: price"),
        (lambda rows: rows.with_columns(pl.col("price").cast(pl.Int64)), "column 'price' has the wrong type"),
        (lambda rows: rows.with_columns(pl.lit(None, SCHEMA["at"]).alias("known")), "1 of 1 rows break the contract"),
    ],
)
def test_a_table_of_another_shape(shop, change, said):
    with pytest.raises(DataContractError, match=said):
        ingest(shop.project, "sales", change(shop.frame(Sale(1))), NOON)


def test_no_rows(shop):
    assert fates(shop.ingest()) == {}
    assert shop.ask()["w_1h_rows"] == 0


@pytest.mark.parametrize("source", ["other", "sale"])
def test_a_source_that_no_view_looks_at(shop, source):
    with pytest.raises(ConfigurationError, match="no view looks at this source"):
        ingest(shop.project, source, SHOPS, NOON)


def test_a_static_row_replaces_its_entity(shop):
    assert fates(ingest(shop.project, "shops", SHOPS, NOON)) == {"applied": 2}
    ingest(shop.project, "shops", pl.DataFrame({"shop": ["b", "b"], "city": ["Rom", "Rom"]}), NOON)
    assert [shop.ask(name)["place_city"] for name in ("a", "b", "c", None)] == ["Bonn", "Rom", None, None]
    with pytest.raises(DataContractError, match="1 rows came before with other values"):
        ingest(shop.project, "shops", pl.DataFrame({"shop": ["b", "b"], "city": ["Rom", "Ulm"]}), NOON)


@pytest.mark.parametrize("value", [math.inf, math.nan, None, 5e-324, 0.0])
def test_a_latest_value_that_is_no_common_number(shop, value):
    shop.ingest(Sale(1, price=value))
    assert repr(shop.ask()["newest_price"]) == repr(value)


# ---- files -------------------------------------------------------------------------------------


@pytest.fixture
def files(shop: Shop, prepared: Any) -> Any:
    """Write the sales as the source's file and build the state of it."""

    def build(*rows: Sale, at: float = 0) -> None:
        shop.frame(*rows).write_parquet(shop.project.folder / "sales.parquet")
        SHOPS.write_parquet(shop.project.folder / "shops.parquet")
        build_online_state(shop.project, prepared(shop.project.folder).sources, NOON + at * MINUTE)

    return build


def test_a_state_of_files_and_of_the_same_rows_ingested(shop, files, tmp_path):
    rows = [Sale(n, 7 * n, 7 * n + n % 50, "abc"[n % 3], n / 7) for n in range(200)]
    files(*rows, at=900)
    other = Shop(tmp_path / "other")
    ingest(other.project, "shops", SHOPS, NOON)
    other.ingest(*rows, at=900)
    for at in (900, 901, 1300):
        for name in "abcd":
            assert shop.ask(name, at) == other.ask(name, at)
    shop.advance(1400)
    other.advance(1400)
    assert [shop.ask(name, 1400) for name in "abc"] == [other.ask(name, 1400) for name in "abc"]


def test_building_again_changes_nothing(shop, files):
    files(Sale(1), Sale(2, 9, 30))
    before = contents(shop)
    files(Sale(1), Sale(2, 9, 30))
    assert contents(shop) == before


def test_changed_files_are_loaded_anew(shop, files):
    files(Sale(1), Sale(2))
    files(Sale(1), Sale(3, price=3.0), Sale(4, price=4.0))
    assert shop.ask()["w_1h_sum"] == 8.0


def test_an_earlier_time_is_loaded_anew(shop, files):
    files(Sale(1, -30), Sale(2, 300), at=60 * 24)
    assert shop.ask(at=60 * 24)["w_1h_rows"] == 0
    files(Sale(1, -30), Sale(2, 300), at=0)
    assert shop.ask(at=0)["w_1h_rows"] == 1


def test_ingested_rows_survive_changed_files(shop, files):
    files(Sale(1), at=0)
    shop.ingest(Sale(2, price=2.0), Sale(3, price=3.0), at=1)
    files(Sale(1), Sale(2, price=2.0), Sale(4, price=4.0), at=0)
    assert shop.ask(at=1)["w_1h_sum"] == 10.0
    assert shop.ask(at=1)["w_1h_last"] == 4.0


# ---- who may read ------------------------------------------------------------------------------


def test_no_state(shop):
    with pytest.raises(BundleError, match="the online state is missing"):
        shop.open()


def test_a_state_of_other_definitions(shop, tmp_path):
    shop.ingest(Sale(1))
    spec, identity = serving_spec(shop.project.definitions), state_plan(shop.project).identity
    other = Shop(tmp_path / "other", corrections=True)
    fewer = replace(spec, views=spec.views[1:])
    for asked, of in ((spec, state_plan(other.project).identity), (fewer, identity)):
        with pytest.raises(BundleError, match="the online state is not of these definitions"):
            OnlineState(shop.folder, asked, of)


def test_an_open_state_sees_what_is_written_later(shop):
    shop.ingest(Sale(1))
    state = shop.open()
    with state.snapshot() as before:
        shop.ingest(Sale(2), at=1)
        with state.snapshot() as after:
            assert (after.as_of_us - before.as_of_us) == 60_000_000
            rows = pl.DataFrame({"at": [NOON], "shop": ["a"]}, schema_overrides={"at": SCHEMA["at"]})
            times = state.prediction_times(rows)
            seen = [s.features(rows, s.feature_times(times))["w_1h_rows"].item() for s in (before, after)]
    assert seen == [1, 2]


# ---- damage ------------------------------------------------------------------------------------


def test_a_flipped_bit_is_never_a_number(shop):
    """Each value of the store in turn, changed behind its checksum."""
    shop.ingest(Sale(1, -1), Sale(2, 3, -9), Sale(3, -2, shop="b"))
    right = {name: shop.ask(name) for name in "ab"}
    found = 0
    for key, value in contents(shop).items():
        for at in (0, len(value) // 2, len(value) - 1):
            changed = bytearray(value)
            changed[at] ^= 4
            with environment(shop.folder).begin(write=True) as transaction:
                transaction.put(key, bytes(changed))
            for name in "ab":
                try:
                    assert shop.ask(name) == right[name]
                except BundleError as error:
                    assert "damaged" in str(error)  # noqa: PT017 (a wrong answer is as bad as another error)
                    found += 1
        with environment(shop.folder).begin(write=True) as transaction:
            transaction.put(key, value)
    assert found > 40


def test_a_value_under_another_key_is_damage(shop):
    shop.ingest(Sale(1), Sale(2, shop="b", price=2.0))
    keys = sorted(key for key in contents(shop) if key.startswith(b"c"))
    with environment(shop.folder).begin(write=True) as transaction:
        for mine, other in pairwise(keys):
            transaction.put(mine, transaction.get(other))
    with pytest.raises(BundleError, match="damaged"):
        shop.ask("a")


def test_a_file_that_is_no_state(shop):
    shop.folder.mkdir(parents=True)
    (shop.folder / "state.mdb").write_bytes(b"nonsense" * 4096)
    with pytest.raises(BundleError, match="cannot be opened"):
        shop.open()
    with pytest.raises(BundleError, match="cannot be opened"):
        shop.ingest(Sale(1))

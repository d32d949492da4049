from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dataframely as dy
import polars as pl
import pytest

import raypipe as rp
from raypipe.data.policy import Broken, count_by_rule, require_allowed
from raypipe.errors import ConfigurationError, DataContractError
from raypipe.project.source_settings import Contract

COLUMN = "    bought = dy.Bool(nullable=True)\n"


class Sales(dy.Schema):
    sale = dy.Int64(primary_key=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    price = dy.Float64(min=0)
    kind = dy.String(check=lambda c: c != "x")

    @dy.rule()
    def cheap(cls):
        return pl.col("price") < 100


SALES = rp.Source("sales", contract=Sales, event_time="at", delay="0s")


def broken(**counts: int) -> list[Broken]:
    """Rows by the rules they broke, joined by `__and__`; `__bar__` stands for `|`."""
    names = {key: tuple(k.replace("__bar__", "|") for k in key.split("__and__")) for key in counts}
    return [Broken(names[key], rows, "a.parquet", (1, 2)) for key, rows in counts.items()]


def contract(on_violation: str = "quarantine", max_share: float = 0.01, **rules: tuple) -> Contract:
    return Contract(
        on_violation=on_violation,
        max_share=max_share,
        rules={
            name.replace("__bar__", "|"): {"on_violation": kind, "max_share": share}
            for name, (kind, share) in rules.items()
        },
    )


@pytest.mark.parametrize(
    ("policy", "rows", "expected"),
    [
        (contract("refuse"), broken(), None),
        (contract("refuse"), broken(cheap=1), "none"),
        (contract("warn"), broken(cheap=1000), None),
        (contract(), broken(cheap=10), None),
        (contract(), broken(cheap=11), "at most a share of 0.01 (it is 0.0110)"),
        (contract(), broken(cheap=6, price__bar__min=6), "at most a share of 0.01 (it is 0.0120)"),
        (contract(), broken(cheap__and__price__bar__min=10), None),  # ten rows, whatever they broke
        (contract(cheap=("refuse", None)), broken(cheap=1), "none"),
        (contract(cheap=("refuse", None)), broken(price__bar__min=1), None),
        (contract("refuse", cheap=("warn", None)), broken(cheap=500), None),
        (contract("refuse", cheap=("quarantine", None)), broken(cheap=10), None),
        (contract(cheap=("quarantine", 0.5)), broken(cheap=500), None),
        (contract(cheap=("quarantine", 0.5)), broken(cheap=501), "at most a share of 0.5 (it is 0.5010)"),
        (contract(cheap=("quarantine", 0.001)), broken(cheap=2), "at most a share of 0.001 (it is 0.0020)"),
        (contract(cheap=("quarantine", 0.5)), broken(cheap=500, price__bar__min=11), "at most a share of 0.01 (it is 0.0110)"),
        (contract(max_share=0), broken(cheap=1), "at most a share of 0.0 (it is 0.0010)"),
    ],
)  # fmt: skip
def test_what_a_policy_allows_of_a_thousand_rows(policy, rows, expected):
    if expected is None:
        require_allowed(SALES, policy, rows, 1000)
        return
    with pytest.raises(DataContractError) as caught:
        require_allowed(SALES, policy, rows, 1000)
    assert (caught.value.expected, caught.value.exit_code) == (expected, 4)


def test_counts_are_of_rows_a_rule():
    counts = count_by_rule(broken(cheap=1, cheap__and__price__bar__min=5, price__bar__min=3))
    assert list(counts.items()) == [("price|min", 8), ("cheap", 6)]


@pytest.mark.parametrize(
    ("rules", "hint"),
    [
        ({"amount|mn": {"on_violation": "warn"}}, "did you mean 'amount|min'?"),
        ({"shop|regexp": {"on_violation": "warn"}}, "did you mean 'shop|regex'?"),
        ({"primary": {"on_violation": "warn"}}, "did you mean 'primary_key'?"),
        ({"fresh": {"on_violation": "warn"}}, "did you mean 'freshness'?"),
    ],
)
def test_an_unknown_rule_is_refused_with_the_nearest(spread, visits_of, rules, hint):
    with pytest.raises(ConfigurationError, match="the contract of source 'visits' has no rule") as caught:
        visits_of(spread(settings={"sources.visits.contract": {"rules": rules}}))
    assert (caught.value.hint, caught.value.exit_code) == (hint, 2)
    assert caught.value.where == "project.yaml: sources.visits.contract.rules"


@pytest.mark.parametrize("rule", ["known|nullability", "primary_key", "amount|min", "freshness"])
def test_every_rule_may_have_a_policy(spread, visits_of, rule):
    rules = {rule: {"on_violation": "quarantine", "max_share": 0.1}}
    assert visits_of(spread(settings={"sources.visits.contract": {"rules": rules}})).rows == 600


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("rules", {"amount|min": {"on_violation": "drop"}}, "on_violation"),
        ("rules", {"amount|min": {"on_violation": "warn", "share": 1}}, "did you mean 'max_share'?"),
        ("freshness", {"max_age": "7d", "max_agee": "7d"}, "did you mean 'max_age'?"),
        ("freshness", {"max_age": "soon"}, "not a duration"),
    ],
)
def test_a_wrong_setting_is_named(spread, visits_of, setting, value, says):
    with pytest.raises(ConfigurationError) as caught:
        visits_of(spread(settings={f"sources.visits.contract.{setting}": value}))
    assert says in str(caught.value)


# ---- rules on rows -----------------------------------------------------------------------------


def ruled(body: str) -> list[tuple[str, str]]:
    return [(COLUMN, f"{COLUMN}\n    @dy.rule()\n    def ours(cls):\n        return {body}\n")]


ALL = {"sources.visits.contract": {"on_violation": "quarantine", "max_share": 1}}


@pytest.mark.parametrize(
    "body", ["pl.col('amount') > 0", "pl.col('amount') <= pl.col('visit') + 1000", "pl.col('user') != 'u1'"]
)
def test_a_null_never_passes_a_rule_of_ones_own(spread, visits_of, tables, body):
    fits = eval(body, {"pl": pl}).fill_null(value=False)
    visits = visits_of(spread(edits=ruled(body), settings=ALL))
    right = tables["visits"].filter(fits)
    assert visits.violations == {"ours": 600 - right.height}
    assert sorted(visits.scan().collect()["visit"]) == sorted(right["visit"])


def test_a_rule_may_let_a_null_pass(spread, visits_of):
    assert visits_of(spread(edits=ruled("pl.col('amount').is_null() | (pl.col('amount') >= 0)"))).violations == {}


def test_a_null_keeps_the_rules_of_a_nullable_column(spread, visits_of, tables):
    assert tables["visits"]["amount"].null_count() > 0  # amount has min=0
    assert visits_of(spread()).violations == {}


def test_a_check_without_an_answer_for_a_value_is_broken(spread, visits_of, tables):
    check = "user = dy.String(nullable=True, check=lambda c: c.str.slice(1).str.to_integer(strict=False) >= 0)"
    users = tables["visits"].with_columns(user=pl.when(pl.col("visit") < 3).then(pl.lit("uX")).otherwise("user"))
    visits = visits_of(spread({"0": users}, edits=[("user = dy.String(nullable=True)", check)], settings=ALL))
    assert visits.violations == {"user|check": 3}


@pytest.mark.parametrize(
    ("column", "rule", "value"),
    [
        ("amount = dy.Float64(nullable=True, max=50)", "amount|max", pl.col("amount") > 50),
        ('shop = dy.String(regex="^[a-c]$")', "shop|regex", pl.col("shop") == "d"),
        ("visit = dy.Int64(primary_key=True, is_in=list(range(590)))", "visit|is_in", pl.col("visit") >= 590),
        ("user = dy.String()", "user|nullability", pl.col("user").is_null()),
    ],
)
def test_each_kind_of_rule_names_its_rows(spread, visits_of, tables, column, rule, value):
    name = column.split(" ")[0]
    old = {"amount": "amount = dy.Float64(nullable=True, min=0)", "shop": 'shop = dy.String(regex="^[a-d]$")', "visit": "visit = dy.Int64(primary_key=True)", "user": "user = dy.String(nullable=True)"}  # fmt: skip
    visits = visits_of(spread(edits=[(old[name], column)], settings=ALL))
    wrong = tables["visits"].filter(value)
    assert visits.violations == {rule: wrong.height}
    assert wrong.height > 0
    assert sorted(pl.read_parquet(visits.quarantine)["visit"]) == sorted(wrong["visit"])
    assert visits.rows == 600 - wrong.height


def test_one_rule_sets_aside_and_another_warns(spread, visits_of, tables):
    wrong = tables["visits"].with_columns(
        amount=pl.when(pl.col("visit") < 4).then(-1.0).otherwise("amount"),
        shop=pl.when(pl.col("visit") < 2).then(pl.lit("z")).otherwise("shop"),
    )
    rules = {"amount|min": {"on_violation": "warn"}, "shop|regex": {"on_violation": "quarantine"}}
    visits = visits_of(spread({"0": wrong}, settings={"sources.visits.contract": {"rules": rules}}))
    assert visits.violations == {"amount|min": 4, "shop|regex": 2}
    aside = pl.read_parquet(visits.quarantine)
    assert sorted(aside["visit"]) == [0, 1]
    assert aside["__broken_rules"].to_list() == [["shop|regex", "amount|min"]] * 2
    assert sorted(visits.scan().filter(pl.col("amount") < 0).collect()["visit"]) == [2, 3]


# ---- freshness ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "fresh"), [(timedelta(days=7), True), (timedelta(days=7, microseconds=1), False)])
def test_freshness_counts_from_now(spread, visits_of, tables, late, fresh):
    now, settings = tables["visits"]["at"].max() + late, {"sources.visits.contract.freshness": {"max_age": "7d"}}
    if fresh:
        assert visits_of(spread(settings=settings), now=now).warnings == []
        return
    with pytest.raises(DataContractError, match="the newest event is older than 7d") as caught:
        visits_of(spread(settings=settings), now=now)
    assert caught.value.got == tables["visits"]["at"].max().isoformat()


def test_freshness_may_warn_and_is_asked_each_time(spread, visits_of, tables):
    rules = {"freshness": {"on_violation": "warn"}}
    contract = {"freshness": {"max_age": "1d"}, "rules": rules}
    folder, newest = spread(settings={"sources.visits.contract": contract}), tables["visits"]["at"].max()
    told = f"the newest event ({newest.isoformat()}) is older than 1d"
    assert [visits_of(folder, now=newest + timedelta(days=d)).warnings for d in (2, 0, 3)] == [[told], [], [told]]


def test_a_static_source_has_no_freshness(shop, visits_of, tmp_path):
    with pytest.raises(ConfigurationError, match="a static source has no newest event"):
        visits_of(shop(tmp_path, settings={"sources.shops.contract": {"freshness": {"max_age": "1d"}}}))


def test_an_empty_source_is_not_fresh(spread, visits_of, tables):
    settings = {"sources.visits.contract.freshness": {"max_age": "7d"}}
    with pytest.raises(DataContractError) as caught:
        visits_of(spread({"0": tables["visits"].head(0)}, settings=settings), now=datetime(2024, 1, 1, tzinfo=UTC))
    assert caught.value.got == "no event"

"""Figures and verdicts in words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from raypipe.evaluation import report_words as words
from raypipe.evaluation.gate import Finding, Verdict
from raypipe.evaluation.names import METRICS
from raypipe.evaluation.report_facts import limits, lineage, missing_most


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "\u2013"), (math.nan, "\u2013"), (82617, "82,617"), (0.73780, "0.7378"), (12345.6, "12,346"), (0.0, "0"), (0.00001234, "1.2e-05"), ("a", "a"), (True, "True")],
)  # fmt: skip
def test_a_number(value, said):
    assert words.number(value) == said


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ([0.7378, 0.7312, 0.7444], "0.738 (0.731 to 0.744)"),
        ([0.009782, 0.0071, 0.0132], "0.0098 (0.0071 to 0.0132)"),
        ([1234.5, 1200.0, 1270.0], "1,234 (1,200 to 1,270)"),
        ([0.5, 0.5, 0.5], "0.5"),
        ([-0.0001, -0.02, 0.02], "0.000 (-0.020 to 0.020)"),
        ([0.7378, None, None], "0.7378"),
        ([None, None, None], "\u2013"),
        (0.5, "0.5"),
        (None, "\u2013"),
    ],
)
def test_an_interval_has_the_digits_that_its_width_allows(figure, said):
    assert words.interval(figure) == said


@pytest.mark.parametrize(
    ("metric", "difference", "expected"),
    [
        ("roc_auc", [0.02, 0.01, 0.03], ("better", "better by 0.020 (0.010 to 0.030)")),
        ("log_loss", [-0.02, -0.03, -0.01], ("better", "better by 0.020 (0.010 to 0.030)")),
        ("log_loss", [0.02, 0.01, 0.03], ("worse", "worse by 0.020 (0.010 to 0.030)")),
        ("r2", [-0.02, None, None], ("worse", "worse by 0.02")),
        ("rmse", [-0.02, -0.05, 0.01], ("same", "no clear difference: -0.020 (-0.050 to 0.010)")),
        ("rmse", None, ("same", "\u2013")),
    ],
)
def test_a_difference_is_news_only_when_its_interval_leaves_out_0(metric, difference, expected):
    assert words.better(metric, difference) == expected


def test_every_metric_is_explained():
    assert {m for metrics in METRICS.values() for m in metrics} == set(words.MEANINGS)


@pytest.mark.parametrize(
    ("value", "said"), [(0.2214, "22.1 %"), (0.0, "0.0 %"), (0.0001, "below 0.1 %"), (1, "100.0 %"), (None, "\u2013")]
)
def test_a_share(value, said):
    assert words.share(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0.4 s"), (44.1, "44 s"), (150, "2.5 min"), (7200, "2 hours"), (7.5 * 86400, "7.5 days"), (math.inf, "\u2013"), (None, "\u2013")]
)  # fmt: skip
def test_a_duration(seconds, said):
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 bytes"), (1023, "1,023 bytes"), (660_000, "645 KiB"), (5e9, "4.7 GiB"), (None, "\u2013")]
)
def test_a_size(count, said):
    assert words.size(count) == said


FAR, NEAR = Finding("a > 0.5", "pass", 0.9, 0.5, 0.8, 0.95), Finding("b < 2", "pass", 1.5, 2.0, 1.1, 1.9)
COUNT = Finding("leakage == none", "pass", 0.0, 0.0)
BROKEN, MISSING = Finding("c > 3", "fail", 2.0, 3.0), Finding("d > 1", "inconclusive", None, 1.0)


def test_a_pass_is_decided_by_the_closest_rule_and_the_rest_by_the_worst():
    assert words.deciders(Verdict("pass", [COUNT, FAR, NEAR])) == [NEAR]
    assert words.deciders(Verdict("pass", [COUNT])) == []
    assert words.deciders(Verdict("fail", [FAR, BROKEN, MISSING])) == [BROKEN]
    assert words.deciders(Verdict("inconclusive", [MISSING, FAR])) == [MISSING]
    assert words.verdict_means(Verdict("pass", [NEAR])) == "The model may be released: it meets its only rule."


def test_an_open_verdict_says_how_many_rows_would_decide():
    open_ = Finding("a > 0.5", "inconclusive", 0.51, 0.5, 0.49, 0.53, 12_400)
    verdict = Verdict("inconclusive", [open_, replace(open_, more_rows=900), replace(open_, more_rows=None), FAR])
    assert words.verdict_means(verdict) == (
        "The model is not released yet: the test rows cannot decide 3 of 4 rules. About 12,400 more test rows would decide."
    )


@pytest.mark.parametrize(
    ("rule", "figure", "said"),
    [("age_of_data.flights < 2d", 648_000.0, "7.5 days"), ("backtest.staleness >= 7d", [864_000.0, None, None], "10 days"), ("a < 2", [0.51, 0.49, 0.53], "0.510 (0.490 to 0.530)"), ("a < 2", None, "\u2013")],
)  # fmt: skip
def test_figures_of_rules_have_their_units(rule, figure, said):
    assert words.in_unit(rule, figure) == said


def test_what_moved_a_row_is_told_from_the_largest_on():
    row = {
        "features": {"a": 1.5, "b": None, "c": "x"},
        "contributions": {"a": 0.1, "b": -0.9, "age": 0.4, "bias": -5.0},
    }
    assert words.movers(row) == "b = \u2013: -0.90; age: +0.40; a = 1.5: +0.10"
    assert words.movers({"row": 1}) == ""


def test_an_example_of_a_behaviour_says_what_was_changed():
    found = {"row": 7, "score": 0.21, "score_changed": 0.19, "values": {"rain": 0, "hour": 5}, "changed": {"rain": 4}}
    assert words.example(found) == "row 7: rain 0, changed to 4, hour 5, score 0.21, changed to 0.19"
    assert (
        words.example({"row": 7, "score": [0.25, 0.75], "score_changed": None, "values": {}})
        == "row 7: score 0.25/0.75"
    )
    assert words.example(None) == ""


def test_the_ages_of_all_origins_stand_beside_each_other():
    ages = [[{"age_days": 0, "metric": [0.7, 0.6, 0.8]}, {"age_days": 7, "metric": [0.6, 0.5, 0.7]}], [{"age_days": 0}]]
    backtest = {"origins": [{"origin": "2024-01-01", "ages": of} for of in ages]}
    assert words.by_age(backtest) == [(0, [[0.7, 0.6, 0.8], None]), (7, [[0.6, 0.5, 0.7], None])]
    assert words.by_age({}) == []


def test_lift_is_told_at_round_shares():
    gain = [{"share": n / 100, "captured": min(n / 50, 1)} for n in range(101)]
    assert [p["share"] for p in words.at_shares(gain)] == [0.01, 0.05, 0.1, 0.2, 0.5]
    assert words.at_shares(gain[:3]) == [gain[1], gain[2]]
    assert words.at_shares([]) == []


def test_limits_name_what_was_not_measured(reported):
    whole = reported("binary")
    assert "8 of 16 values of carrier have too few rows to be measured (1.0 % of the test rows)." in limits(whole)
    bare = reported("binary", result={"task": "binary", "model": {"rows": 5}})
    said = " ".join(limits(bare))
    assert all(part in said for part in ("no time", "no intervals", "Fairness", "behaviour"))


def test_lineage_says_what_is_known(reported):
    whole = reported("binary")
    assert lineage(whole)["code"] == "commit 976dad2be82e, with changes that no commit holds"
    run = {k: whole.run[k] for k in ("digest", "best_round", "history", "metric")}
    bare = reported("binary", run=run, training_set={"digest": "a" * 64})
    assert lineage(bare) == {
        "run": "5236a337df4f",
        "training set": "a" * 12,
        "rounds": "170 of 190, by logloss on validation",
    }


def test_features_that_are_always_there_are_not_listed_as_missing(reported):
    evidence = {"null_share": {"b": 0.5, "a": 0.5, "c": 0.0, "d": 0.7}}
    assert missing_most(reported("binary", evidence=evidence), most=2) == [("d", 0.7), ("a", 0.5)]

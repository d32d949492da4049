"""Every figure that a rule may name is found in what was measured; by hand-made documents."""

from __future__ import annotations

import math
from typing import Any

import pytest

from raypipe.evaluation.gate import judge
from raypipe.evaluation.gate_figures import data_evidence_of, evidence_of
from raypipe.evaluation.rules import PROBES, known_figures, parse
from raypipe.project import load_project
from raypipe.project.evaluation_settings import Evaluation

SETTINGS = Evaluation(gate=["log_loss < 1"], slices=["shop"])
METRICS = {"roc_auc": [0.74, 0.73, 0.75], "log_loss": [0.46, 0.45, 0.47], "average_precision": [0.5, 0.4, 0.6],
           "brier": [0.15, 0.14, 0.16], "calibration_error": [0.02, 0.01, 0.03]}  # fmt: skip
APART = {name: {"difference": [0.1, 0.04, 0.16], "one_sided": [0.05, 0.15], "p_value": 0.01} for name in METRICS}
DATA: dict[str, Any] = {
    "leakage": {
        "found": [{"probe": "overlap"}, {"probe": "overlap"}, {"probe": "known_time"}],
        "probes": {probe: {"because": ""} for probe in PROBES},
    },
    "null_share": {},
    "age_of_data_s": {"visits": 3 * 86_400.0, "stock": 600.0},
}
RESULT: dict[str, Any] = {
    "model": {"rows": 1000},
    "champion": {"version": 4},
    "intervals": {"model": METRICS},
    "comparisons": {"base_rate": APART, "champion": APART},
    "slices": {
        "shop": [
            {"value": "a", "rows": 600, "intervals": METRICS, "champion": {"log_loss": [0.0, -0.1, 0.1]}},
            {"value": "b", "rows": 390, "intervals": METRICS | {"log_loss": [0.8, 0.7, 0.9]}},
            {"value": None, "rows": 10},
        ]
    },
    "calibration": {"ece": [0.02, 0.01, 0.03], "slope": [1.0, 0.9, 1.1], "intercept": [0.0, -0.1, 0.1]},
    "threshold": {name: [0.6, 0.5, 0.7] for name in ("precision", "recall", "specificity", "positive_rate")},
    "fairness": None,
    "usefulness": [{"feature": "noise", "useless": True}, {"feature": "distance", "useless": False}],
    "behaviour": [{"name": "x", "holds": True}, {"name": "y", "holds": False}],
    "worst_slices": {"found": []},
    "latency": {"p50_ms": 1.0, "p99_ms": 2.0},
    "backtest": {"staleness_days": 14},
    "data": DATA,
}


@pytest.fixture(scope="module")
def definitions(shop_of, tmp_path_factory):
    return load_project(shop_of("binary", tmp_path_factory.mktemp("figures"))).definitions


@pytest.fixture(scope="module")
def measured(definitions):
    """RESULT with a null share of each of the project's features."""
    nulls = dict.fromkeys(definitions.features(), 0.0) | {"place_size": 0.25}
    return RESULT | {"data": DATA | {"null_share": nulls}}


@pytest.fixture(scope="module")
def finding(definitions, measured):
    def find(text: str, **changes: Any):
        return judge([parse(text, definitions, SETTINGS)], evidence_of(measured | changes)).findings[0]

    return find


def test_every_known_figure_is_there(definitions, measured):
    cases = evidence_of(measured).cases
    assert set(known_figures(definitions, SETTINGS)) <= set(cases)
    assert all(case.figure.value is not None for found in cases.values() for case in found)


@pytest.mark.parametrize(
    ("text", "got", "outcome"),
    [
        ("roc_auc >= 0.73", 0.74, "pass"),
        ("roc_auc > base_rate", 0.74, "pass"),
        ("roc_auc >= champion + 0.1", 0.74, "inconclusive"),
        ("slice.shop.log_loss <= 0.6", 0.8, "fail"),
        ("slice.shop.log_loss <= champion + 0.2", 0.8, "inconclusive"),  # b has no difference
        ("calibration.ece <= 0.03", 0.02, "pass"),
        ("threshold.precision >= 0.65", 0.6, "inconclusive"),
        ("leakage == none", 3, "fail"),
        ("leakage.overlap == none", 2, "fail"),
        ("leakage.shifted_features == none", 0, "pass"),
        ("features.null_share <= 0.2", 0.25, "fail"),
        ("features.null_share.place_size <= 0.3", 0.25, "pass"),
        ("age_of_data.stock <= 10m", 600, "pass"),
        ("age_of_data <= 7d", 259_200, "pass"),
        ("features.useless <= 1", 1, "pass"),
        ("behaviour.failed == none", 1, "fail"),
        ("worst_slices.found == none", 0, "pass"),
        ("latency.p99_ms <= 20", 2.0, "pass"),
        ("backtest.staleness >= 30d", 14 * 86_400, "fail"),
    ],
)
def test_by_hand(text, got, outcome, finding):
    assert (finding(text).got, finding(text).outcome) == (got, outcome)


def test_what_breaks_the_rule_is_named(finding):
    assert finding("features.null_share <= 0.2").says == "place_size: 0.25, bound 0.2"
    assert finding("age_of_data <= 1d").says.startswith("visits: ")


def test_a_model_that_never_grows_stale_is_as_old_as_one_likes(finding):
    assert finding("backtest.staleness >= 30d", backtest={"staleness_days": None}).got == math.inf


def test_a_probe_that_could_not_look_says_nothing(finding, measured):
    blind = {"found": [], "probes": {"overlap": {"because": "there is no key"}}}
    found = finding("leakage.overlap == none", data=measured["data"] | {"leakage": blind})
    assert (found.outcome, found.says) == ("inconclusive", "was not measured")


@pytest.mark.parametrize("key", ["calibration", "threshold", "latency", "backtest"])
def test_what_was_not_measured_is_open(key, finding):
    text = {"calibration": "calibration.ece <= 1", "threshold": "threshold.recall >= 0", "latency": "latency.p99_ms <= 9",
            "backtest": "backtest.staleness >= 1d"}[key]  # fmt: skip
    found = finding(text, **{key: None})
    assert (found.outcome, found.says) == ("inconclusive", "was not measured")


def test_rules_over_data_alone_are_decided_before_a_model_is_trained(definitions):
    rules = [parse(text, definitions, SETTINGS) for text in ("leakage == none", "age_of_data <= 7d")]
    assert [f.outcome for f in judge(rules, data_evidence_of(DATA)).findings] == ["fail", "pass"]

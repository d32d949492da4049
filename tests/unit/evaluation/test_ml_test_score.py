"""The ML Test Score: each test counts what the documents of the release show, and the least section is the score."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from raypipe.evaluation.ml_test_evidence import Evidence
from raypipe.evaluation.ml_test_score import lowest, meaning, ml_test_score

RULE = {"rule": "roc_auc >= 0.7", "outcome": "pass", "got": 0.8, "bound": 0.7}
METRICS = {
    "task": "binary",
    "model": {"roc_auc": 0.8, "rows": 5000},
    "baselines": {"base_rate": {"roc_auc": 0.5}, "logistic_regression": {"roc_auc": 0.78}},
    "importance": {"distance": 0.7, "hour": 0.3},
    "verdict": {"outcome": "pass", "findings": [RULE]},
    "usefulness": [
        {"feature": "distance", "drop": [0.05, 0.04, 0.06], "bytes": 800, "useless": False},
        {"feature": "hour", "drop": [0.01, 0.005, 0.015], "bytes": 200, "useless": False},
    ],
    "comparisons": {
        "base_rate": {"roc_auc": {"difference": [0.3, 0.28, 0.32], "p_value": 0.001}},
        "logistic_regression": {"roc_auc": {"difference": [0.02, 0.01, 0.03], "p_value": 0.001}},
        "champion": {"roc_auc": {"difference": [-0.1, -0.2, -0.05], "p_value": 0.001}},
    },
    "backtest": {
        "origins": [{"origin": "2025-01-01"}, {"origin": "2025-02-01"}],
        "by_age": [{"age_days": 7}, {"age_days": 30}],
        "staleness_days": 30,
    },
    "slices": {"city": [{"value": "A", "rows": 900, "intervals": {"roc_auc": [0.8, 0.7, 0.9]}}]},
    "worst_slices": {"tested": 40, "found": []},
    "fairness": {"city": {"groups": [], "differences": {}, "ratios": {}}},
    "data": {
        "leakage": {"found": [], "probes": {"single_feature": {"because": None}, "overlap": {"because": "no time"}}}
    },
    "worst_rows": {"rows": [{"row": 3, "features": {"hour": 5}, "contributions": {"hour": 0.1}}]},
}
LINEAGE = {
    "definitions": {"document": {"sources": [{"name": "orders", "rules": {"hour|min": {}, "hour|max": {}}}]}},
    "sources": {"orders": {"violations": {"hour|max": 3}}},
    "code": {"commit": "c0ffee" * 6, "dirty": False, "changes": []},
    "training": {"tuning": "ab" * 32},
}
# All that a release can show today; the sums below are added up by hand from it.
FULL = Evidence(
    version=4,
    metrics=METRICS,
    lineage=LINEAGE,
    tuning={
        "space": {"eta": {}, "max_depth": {}},
        "edges": [{"name": "eta", "limit": True}],
        "rounds_exhausted": False,
    },
    reproduction={"at": "2025-06-01T00:00:00+00:00", "equal": True},
    ledger=[
        {"number": 1, "action": "promote", "from": None, "to": 3},
        {"number": 2, "action": "rollback", "from": 4, "to": 3},
    ],
)
NOTHING = Evidence(
    version=1,
    metrics={"task": "binary", "baselines": {}, "verdict": {"outcome": "fail", "findings": []}},
    lineage={
        "definitions": {"document": {"sources": [{"name": "orders", "rules": {}}]}},
        "sources": {"orders": {"violations": {}}},
        "code": {"commit": None, "dirty": None, "changes": []},
        "training": {},
    },
)
BY_HAND = {
    "data": [1, 1, 0.5, 1, 0, 0, 0],
    "model": [0.5, 0, 1, 1, 1, 1, 0.5],
    "infrastructure": [0.5, 0, 0, 1, 1, 0, 0.5],
    "monitoring": [0, 0, 0, 0, 0, 0, 0],
}


def points(document) -> dict[str, list[float]]:
    return {name: [item["points"] for item in section["items"]] for name, section in document["sections"].items()}


def item(evidence, section: str, number: int) -> dict:
    return ml_test_score(evidence)["sections"][section]["items"][number - 1]


def test_all_that_can_be_shown():
    document = ml_test_score(FULL)
    assert points(document) == BY_HAND
    assert {name: s["score"] for name, s in document["sections"].items()} == {
        "data": 3.5,
        "model": 5.0,
        "infrastructure": 3.0,
        "monitoring": 0.0,
    }
    assert document["score"] == 0.0
    assert document["meaning"] == "a research project rather than a production system"


def test_a_release_that_shows_nothing_scores_nothing():
    document = ml_test_score(NOTHING)
    assert {p for section in points(document).values() for p in section} == {0}
    for section in document["sections"].values():
        for test in section["items"]:
            assert test["shown_by"]
            assert "not shown" in test["evidence"] or "verdict fail" in test["evidence"]


def test_four_sections_of_seven_tests():
    document = ml_test_score(FULL)
    tests = [test["test"] for section in document["sections"].values() for test in section["items"]]
    assert [len(section["items"]) for section in document["sections"].values()] == [7, 7, 7, 7]
    assert len(set(tests)) == 28


@pytest.mark.parametrize(
    ("sums", "score"),
    [
        ({"data": 3.5, "model": 5.0, "infrastructure": 3.0, "monitoring": 4.5}, 3.0),
        ({"data": 0.5, "model": 7.0, "infrastructure": 7.0, "monitoring": 7.0}, 0.5),
    ],
    ids=["least", "no section makes up for another"],
)
def test_the_score_is_the_least_section(sums, score):
    assert lowest(sums) == score


# The rows of the paper's table: the score of each row's end, and one just above the end before it.
@pytest.mark.parametrize(
    ("score", "words"),
    [
        (0, "research project"),
        (0.5, "serious holes"),
        (1, "serious holes"),
        (1.5, "first pass"),
        (2, "first pass"),
        (3, "reasonably"),
        (3.5, "strongly"),
        (5, "strongly"),
        (5.5, "exceptionally"),
        (7, "exceptionally"),
    ],
)
def test_what_a_score_means(score, words):
    assert words in meaning(score)


def changed(**changes) -> Evidence:
    """The full evidence, with `metrics__a__b=value` set in its documents; None removes the key."""
    documents = {name: copy.deepcopy(getattr(FULL, name)) for name in ("metrics", "lineage", "tuning")}
    for key, value in changes.items():
        *path, last = key.split("__")
        section = documents
        for part in path:
            section = section[part]
        if value is None:
            del section[last]
        else:
            section[last] = value
    return replace(FULL, **documents)


USELESS = {"feature": "hour", "drop": [0.0, -0.01, 0.01], "bytes": 200, "useless": True}
BETTER = {"difference": [0.02, -0.001, 0.03], "p_value": 0.07}


@pytest.mark.parametrize(
    ("section", "number", "change", "expected", "says"),
    [
        ("data", 1, {"lineage__sources": {}}, 0, "no rules of orders"),
        ("data", 2, {"metrics__usefulness": None}, 0, "not shown"),
        ("data", 2, {"metrics__usefulness": METRICS["usefulness"][:1]}, 0, "1 without"),
        ("data", 2, {"metrics__usefulness": [METRICS["usefulness"][0], USELESS]}, 0, "1 of 2 are useless: hour"),
        ("data", 3, {"metrics__usefulness": [METRICS["usefulness"][0], USELESS]}, 0, "cost 200 bytes"),
        (
            "data",
            3,
            {"metrics__usefulness": [METRICS["usefulness"][0], {"feature": "hour", "useless": False}]},
            0,
            "1 of 2",
        ),
        ("data", 4, {"metrics__data": None}, 0, "not shown"),
        ("data", 4, {"metrics__data__leakage__found": [{"probe": "single_feature", "feature": "hour"}]}, 0, "hour"),
        ("data", 4, {"metrics__data__leakage__probes": {"overlap": {"because": "no time"}}}, 0, "not shown"),
        ("model", 1, {"lineage__code__dirty": True, "lineage__code__changes": [" M features.py"]}, 0, "1 changes"),
        ("model", 3, {"lineage__training__tuning": None}, 0, "no study"),
        ("model", 3, {"tuning__edges": [{"name": "eta", "limit": False}]}, 0, "eta on an edge"),
        ("model", 3, {"tuning__rounds_exhausted": True}, 0, "the last"),
        ("model", 4, {"metrics__backtest": None}, 0, "not shown"),
        ("model", 4, {"metrics__backtest__by_age": [{"age_days": 7}]}, 0, "1 ages"),
        ("model", 5, {"metrics__comparisons": None}, 0, "not shown"),
        (
            "model",
            5,
            {"metrics__comparisons__logistic_regression__roc_auc": BETTER},
            0,
            "logistic_regression may be as good",
        ),
        ("model", 5, {"metrics__comparisons__base_rate": None}, 0, "no comparison of roc_auc with base_rate"),
        ("model", 5, {"metrics__comparisons__base_rate__roc_auc__difference": [0.1, None, None]}, 0, "no comparison"),
        ("model", 6, {"metrics__worst_slices": {"tested": 40, "found": [{}, {}]}}, 0, "2 of 40"),
        ("model", 6, {"metrics__worst_slices": None}, 0.5, "judged by no rule"),
        (
            "model",
            6,
            {"metrics__worst_slices": None, "metrics__slices": {"city": [{"value": "A", "rows": 9}]}},
            0,
            "no slice",
        ),
        ("model", 7, {"metrics__fairness": None}, 0, "not shown"),
        ("infrastructure", 4, {"metrics__verdict__outcome": "inconclusive"}, 0, "inconclusive"),
        ("infrastructure", 4, {"metrics__verdict__findings": [RULE | {"got": None}]}, 0, "0 rules with figures"),
        ("infrastructure", 5, {"metrics__worst_rows": {"rows": [{"row": 3, "features": {"hour": 5}}]}}, 0, "no row"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value),
)
def test_what_is_lacking_or_bad_counts_nothing(section, number, change, expected, says):
    shown = item(changed(**change), section, number)
    assert shown["points"] == expected
    assert says in shown["evidence"]


@pytest.mark.parametrize(
    ("rule", "outcome", "number", "expected"),
    [
        ("slice.city.roc_auc >= 0.6", "pass", 6, 1),
        ("slice.city.roc_auc >= 0.6", "inconclusive", 6, 0.5),
        ("fairness.city.roc_auc <= 0.1", "pass", 7, 1),
        ("fairness.city.roc_auc <= 0.1", "fail", 7, 0.5),
    ],
)
def test_a_rule_of_the_gate_judges_slices_and_groups(rule, outcome, number, expected):
    findings = [RULE, RULE | {"rule": rule, "outcome": outcome}]
    evidence = changed(metrics__worst_slices=None, metrics__verdict__findings=findings)
    assert item(evidence, "model", number)["points"] == expected


@pytest.mark.parametrize(("difference", "expected"), [([-0.02, -0.03, -0.01], 1), ([0.02, 0.01, 0.03], 0)])
def test_a_smaller_rmse_is_better(difference, expected):
    compared = {"mean": {"rmse": {"difference": difference}}}
    evidence = changed(metrics__task="regression", metrics__baselines={"mean": {}}, metrics__comparisons=compared)
    assert item(evidence, "model", 5)["points"] == expected


def test_a_rollback_of_other_versions_shows_nothing_of_this_one():
    entry = {"number": 2, "action": "rollback", "from": 3, "to": 2}
    assert item(replace(FULL, ledger=[entry]), "infrastructure", 7)["points"] == 0
    assert item(replace(FULL, ledger=[entry | {"to": 4}]), "infrastructure", 7)["points"] == 0.5


@pytest.mark.parametrize(
    ("record", "expected"), [(None, 0), ({"at": "2025-06-01", "equal": False}, 0)], ids=["none", "other"]
)
def test_only_a_reproduction_that_came_out_equal_counts(record, expected):
    assert item(replace(FULL, reproduction=record), "infrastructure", 1)["points"] == expected


def test_a_study_that_has_gone_shows_nothing():
    assert item(replace(FULL, tuning=None), "model", 3)["points"] == 0

"""Rules know the figures of the project's task, and no others; each is decided in three values, by its interval."""

from __future__ import annotations

import functools
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.cli.commands import check
from raypipe.errors import ConfigurationError, GateRefusedError
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.gate import OPERATORS, Case, Evidence, judge
from raypipe.evaluation.names import BASELINES, METRICS
from raypipe.evaluation.rules import AGES, PROBES, Rule, known_figures, parse
from raypipe.project import load_project
from raypipe.project.evaluation_settings import Evaluation

SETTINGS = Evaluation(gate=["log_loss < 1"], slices=["shop"])


@pytest.fixture(scope="module")
def definitions(shop_of, tmp_path_factory):
    """The shop's with a label of a task."""
    folder = tmp_path_factory.mktemp("gate")
    return functools.cache(lambda task: load_project(shop_of(task, folder / task)).definitions)


@pytest.fixture(scope="module")
def rule(definitions):
    return lambda text, task="binary": parse(text, definitions(task), SETTINGS)


@pytest.fixture(scope="module")
def decided(rule):
    def decide(text: str, *cases: Case, champion: bool = True):
        made = rule(text)
        return judge([made], Evidence({made.figure: cases}, champion)).findings[0]

    return decide


# ---- what can be stated ------------------------------------------------------------------------


@pytest.mark.parametrize("task", METRICS)
def test_every_known_figure_can_be_stated(task, definitions, rule):
    for name in known_figures(definitions(task), SETTINGS):
        bound, seconds = ("36h", 36 * 3600.0) if name.startswith(AGES) else ("0.5", 0.5)
        assert rule(f" {name} >={bound} ", task) == Rule(f"{name} >={bound}", name, ">=", seconds)
    for model in (*BASELINES[task], "champion"):
        for metric in METRICS[task]:
            expected = Rule(f"{metric} < {model} + 0.01", metric, "<", 0.01, model)
            assert rule(f"{metric} < {model} + 0.01", task) == expected
            named = rule(f"slice.shop.{metric} > {model}.{metric} - 1e-3", task)
            assert (named.figure, named.model, named.bound) == (f"slice.shop.{metric}", model, -0.001)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("leakage == none", 0.0),
        ("age_of_data <= 7d", 604800.0),
        ("calibration.slope >= 0.9", 0.9),
        ("roc_auc>.5", None),
    ],
)
def test_bounds(text, bound, rule):
    if bound is None:
        with pytest.raises(ConfigurationError):
            rule(text)
    else:
        assert rule(text).bound == bound


@pytest.mark.parametrize(
    ("task", "text", "hint"),
    [
        ("regression", "roc_auc > 0.5", "known: "),
        ("regression", "rmsee < 1", "did you mean 'rmse'?"),
        ("ranking", "ndcg_at_5 > 0.5", "did you mean 'ndcg_at_10'?"),
        ("binary", "accuracy > 0.5", "known: "),
        ("multiclass", "log_loss < mean.log_loss", "did you mean "),
        ("binary", "roc_auc > base_rate.log_loss", "did you mean "),
        ("binary", "leakage < champion", "this figure is compared with a number"),
        ("binary", "slice.carrier.log_loss < 1", "did you mean "),
        ("multiclass", "calibration.ece < 1", "known: "),
    ],
)
def test_check_refuses_what_the_task_does_not_know(shop_of, tmp_path, task, text, hint):
    folder = shop_of(task, tmp_path, settings={"evaluation.gate": [text]})
    with pytest.raises(ConfigurationError, match=f"in a rule of a {task} label") as caught:
        check(folder)
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    "text", ["roc_auc", "roc_auc => 1", "roc_auc > 0.5 and log_loss < 1", "> 1", "roc_auc > 1 * 2"]
)
def test_what_is_no_rule(text, rule):
    with pytest.raises(ConfigurationError, match="not a rule"):
        rule(text)


@pytest.mark.parametrize("bound", ["7", "none", "champion", "7 days"])
def test_an_age_needs_a_duration(bound, rule):
    with pytest.raises(ConfigurationError):
        rule(f"age_of_data <= {bound}")


@pytest.mark.parametrize("task", METRICS)
def test_check_names_the_task(shop_of, tmp_path, task):
    document, words = check(shop_of(task, tmp_path))
    assert document["task"] == task
    assert words.startswith(f"shop ({task}): ")


@pytest.mark.parametrize(
    "name",
    ["leakage", *(f"leakage.{probe}" for probe in PROBES), "features.null_share", "features.null_share.place_size",
     "age_of_data", "age_of_data.visits"],
)  # fmt: skip
def test_rules_over_data_alone_are_known(name, rule):
    assert rule(f"{name} <= {'7d' if name.startswith(AGES) else 1}").of_data
    assert not rule("roc_auc > 0.5").of_data


def test_the_probes_are_those_that_are_run():
    from raypipe.evaluation.data_evidence import PROBES as RUN

    assert list(PROBES) == list(RUN)


# ---- three values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "outcome"), [(0.71, 0.75, "pass"), (0.70, 0.74, "pass"), (0.69, 0.73, "inconclusive"),
                                 (0.68, 0.71, "inconclusive"), (0.60, 0.69, "fail")],
)  # fmt: skip
def test_an_interval_decides(low, high, outcome, decided):
    figure = Figure((low + high) / 2, low, high, 1000)
    assert decided("roc_auc >= 0.7", Case(figure)).outcome == outcome
    mirrored = Figure(-figure.value, -high, -low, 1000)
    assert decided("calibration.intercept <= -0.7", Case(mirrored)).outcome == outcome


@pytest.mark.parametrize(
    ("text", "value", "outcome"),
    [
        ("leakage == none", 0, "pass"), ("leakage == none", 2, "fail"),
        ("age_of_data <= 7d", 604_800, "pass"), ("age_of_data <= 7d", 604_801, "fail"),
        ("latency.p99_ms < 20", 20, "fail"), ("latency.p99_ms < 20", 19.9, "pass"),
        ("backtest.staleness >= 14d", math.inf, "pass"), ("roc_auc > 0.5", math.nan, "inconclusive"),
        ("roc_auc > 0.5", None, "inconclusive"),
    ],
)  # fmt: skip
def test_an_exact_figure_decides_by_itself(text, value, outcome, decided):
    assert decided(text, Case(Figure(value, value, value))).outcome == outcome


def test_a_figure_of_which_no_interval_can_be_given_decides_nothing(decided):
    found = decided("roc_auc >= 0.7", Case(Figure(0.99, rows=20)))
    assert (found.outcome, found.got, found.more_rows) == ("inconclusive", 0.99, None)


@pytest.mark.parametrize(
    ("text", "difference", "outcome"),
    [
        ("roc_auc >= champion - 0.005", (-0.001, -0.004, 0.002), "pass"),
        ("roc_auc >= champion - 0.005", (-0.004, -0.009, 0.001), "inconclusive"),
        ("roc_auc >= champion - 0.005", (-0.02, -0.03, -0.01), "fail"),
        ("roc_auc >= champion - 0.005", (0.0, 0.0, 0.0), "pass"),
        ("roc_auc > champion", (0.0, 0.0, 0.0), "fail"),
    ],
)
def test_another_model_is_compared_on_the_difference(text, difference, outcome, rule, decided):
    """The model's own interval is wide: it plays no part."""
    case = Case(Figure(0.74, 0.60, 0.88, 1000), against={"champion": Figure(*difference, 1000)})
    found = decided(text, case)
    assert found.outcome == outcome
    other = 0.74 - difference[0]
    assert found.bound == pytest.approx(other + rule(text).bound)
    assert found.low == pytest.approx(other + difference[1])


def test_without_a_champion_there_is_nothing_to_be_worse_than(decided):
    found = decided("roc_auc >= champion - 0.005", Case(Figure(0.6, 0.5, 0.7, 100)), champion=False)
    assert (found.outcome, found.says) == ("pass", "there is no champion to compare with")


def test_a_champion_that_cannot_be_compared_leaves_it_open(decided):
    found = decided("roc_auc >= champion - 0.005", Case(Figure(0.6, 0.5, 0.7, 100)))
    assert (found.outcome, found.says) == ("inconclusive", "has no difference to champion")


def test_of_slices_the_one_that_breaks_the_rule_is_named(decided):
    def slice_(name: str, value: float) -> Case:
        return Case(Figure(value, value - 0.05, value + 0.05, 500), name)

    fine, open_, broken, worse = slice_("a", 0.4), slice_("b", 0.58), slice_("c", 0.7), slice_("d", 0.9)
    assert decided("slice.shop.log_loss <= 0.6", fine).outcome == "pass"
    assert decided("slice.shop.log_loss <= 0.6", fine, open_).says.startswith("b: ")
    found = decided("slice.shop.log_loss <= 0.6", worse, open_, fine, broken)
    assert (found.outcome, found.says.split(":")[0]) == ("fail", "d")


def test_the_rows_that_would_decide(decided):
    """Half the width is wanted: four times the rows."""
    case = Case(Figure(0.71, 0.69, 0.73, 1000))
    found = decided("roc_auc >= 0.7", case)
    assert found.more_rows == pytest.approx(3000, abs=1)
    assert f"about {found.more_rows:,} more test rows would decide" in found.says


def test_the_worst_finding_is_the_verdict(rule):
    evidence = Evidence(
        {
            "roc_auc": [Case(Figure(0.7, 0.6, 0.8, 9))],
            "leakage": [Case(Figure.exact(0))],
            "log_loss": [Case(Figure.exact(0.9))],
        }
    )
    rules = {name: rule(name) for name in ("leakage == none", "roc_auc > 0.65", "log_loss < 0.5", "roc_auc > 0.65")}
    assert judge([], evidence).outcome == "pass"
    assert judge([rules["leakage == none"]], evidence).outcome == "pass"
    assert judge([rules["leakage == none"], rules["roc_auc > 0.65"]], evidence).outcome == "inconclusive"
    verdict = judge([*rules.values()], evidence)
    assert verdict.outcome == "fail"
    with pytest.raises(GateRefusedError, match="2 of 3 rules do not hold") as caught:
        verdict.require_no_fail()
    assert "log_loss < 0.5: 0.9, bound 0.5 (fail)" in pickle.loads(pickle.dumps(caught.value)).got


@given(
    value=st.floats(-1, 1), below=st.floats(0, 1), above=st.floats(0, 1), bound=st.floats(-1, 1),
    comparison=st.sampled_from(["<", "<=", ">", ">="]),
)  # fmt: skip
def test_the_outcome_is_what_every_value_of_the_interval_says(value, below, above, bound, comparison, decided):
    """By an oracle: the rule tried on many values of the interval."""
    low, high = value - below, value + above
    found = decided(f"calibration.slope {comparison} {bound:.6f}", Case(Figure(value, low, high, 100)))
    tried = [low, value, high, *(min(low + (high - low) * step / 20, high) for step in range(21))]
    held = {OPERATORS[comparison](v - round(bound, 6), 0.0) for v in tried}
    assert found.outcome == {(True,): "pass", (False,): "fail"}.get(tuple(held), "inconclusive")

"""Rules know the figures of the project's task, and no others."""

from __future__ import annotations

import pytest

from raypipe.cli.commands import check
from raypipe.errors import ConfigurationError
from raypipe.evaluation.gate import Rule, judge, known_names, parse
from raypipe.evaluation.names import BASELINES, METRICS


@pytest.mark.parametrize("task", METRICS)
def test_every_known_name_can_be_stated(task):
    assert len(known_names(task)) == len(METRICS[task]) * (1 + len(BASELINES[task]))
    for name in known_names(task):
        assert parse(f"{name} > 0.5", task) == Rule(f"{name} > 0.5", name, ">", 0.5)
        assert parse(f"{METRICS[task][0]} <= {name} - 0.01", task).bound == name


@pytest.mark.parametrize(
    ("task", "rule", "hint"),
    [
        ("regression", "roc_auc > 0.5", "known: "),
        ("regression", "rmsee < 1", "did you mean 'rmse'?"),
        ("ranking", "ndcg_at_5 > 0.5", "did you mean 'ndcg_at_10'?"),
        ("binary", "accuracy > 0.5", "known: "),
        ("multiclass", "log_loss < mean.log_loss", "did you mean "),
    ],
)
def test_check_refuses_the_names_of_other_tasks(shop_of, tmp_path, task, rule, hint):
    folder = shop_of(task, tmp_path, settings={"evaluation.gate": [rule]})
    with pytest.raises(ConfigurationError, match=f"in a rule of a {task} label") as caught:
        check(folder)
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize("task", METRICS)
def test_check_names_the_task(shop_of, tmp_path, task):
    document, words = check(shop_of(task, tmp_path))
    assert document["task"] == task
    assert words.startswith(f"shop ({task}): ")


def test_a_rule_against_a_baseline():
    rules = [parse("rmse < mean.rmse - 1", "regression"), parse("r2 >= 0", "regression")]
    figures = {"rmse": 2.0, "mean.rmse": 3.5, "r2": 0.0}
    assert judge(rules, figures).outcome == "pass"
    assert judge(rules, figures | {"mean.rmse": 3.0}).outcome == "fail"
    assert judge(rules, {"rmse": 2.0, "mean.rmse": 3.5}).outcome == "inconclusive"

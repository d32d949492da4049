"""What Optuna is asked and told, without Ray running."""

from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState

from raypipe.project.tuning_settings import Range
from raypipe.tuning.search import NumberedSearch
from raypipe.tuning.space import inside

SPACE = {"eta": Range(low=0.01, high=0.3, log=True), "max_depth": Range(low=2, high=8, int=True)}
UNTUNED = {"eta": 0.1, "max_depth": 6}


def search(finished=(), numbers=(0, 1, 2), *, untuned=UNTUNED, two=False) -> NumberedSearch:
    return NumberedSearch(SPACE, untuned, finished, numbers, seed=7, maximize=False, two=two)


def test_each_missing_number_is_suggested_once():
    asked = search(numbers=[0, 3, 4])
    first, second, third, last = (asked.suggest(name) for name in "abcd")
    assert first == {"number": 0, "values": {}}
    assert [second["number"], third["number"]] == [3, 4]
    assert inside(SPACE, second["values"])
    assert last == NumberedSearch.FINISHED
    assert asked.suggest("b") == second, "Tune may ask twice for one trial"


@pytest.mark.parametrize(("untuned", "known"), [(UNTUNED, [UNTUNED]), ({"eta": 0.5, "max_depth": 6}, [])])
def test_the_settings_as_they_are_are_told_where_they_lie_in_the_space(untuned, known):
    asked = search(untuned=untuned)
    asked.suggest("a")
    asked.on_trial_result("a", {"value": 0.4, "training_iteration": 1})
    asked.on_trial_complete("a", {"value": 0.3, "second": 0.0})
    assert [trial.params for trial in asked.study.trials] == known
    assert [trial.value for trial in asked.study.trials] == [0.3] * len(known)


def test_finished_trials_are_known(finished):
    values = {"eta": 0.2, "max_depth": 3}
    asked = search([finished(0, 0.5), finished(2, 0.4, values=values), finished(3, None, values=values)], [1])
    told = [(trial.params, trial.value, trial.state) for trial in asked.study.trials]
    assert told == [
        (UNTUNED, 0.5, TrialState.COMPLETE), (values, 0.4, TrialState.COMPLETE), (values, None, TrialState.FAIL),
    ]  # fmt: skip


def test_a_study_that_continues_does_not_suggest_what_it_began_with(finished):
    begun = search(numbers=range(1, 6))
    seen = [begun.suggest(str(i))["values"] for i in range(3)]
    done = [finished(i + 1, 0.5, values=values) for i, values in enumerate(seen)]
    again = search(done, [4, 5])
    assert all(again.suggest(name)["values"] not in seen for name in "ab")


def test_two_objectives_are_told(finished):
    asked = search([finished(1, 0.5, 100.0, values=UNTUNED)], [2], two=True)
    asked.suggest("a")
    asked.on_trial_complete("a", {"value": 0.4, "second": 200.0})
    assert [trial.values for trial in asked.study.trials] == [[0.5, 100.0], [0.4, 200.0]]


def test_a_failed_trial_is_no_result():
    asked = search(numbers=[1])
    asked.suggest("a")
    asked.on_trial_complete("a", {"error": "it broke", "value": math.nan})
    assert [trial.state for trial in asked.study.trials] == [TrialState.FAIL]

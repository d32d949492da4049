"""What the gate does to a run: before training by the data alone, after it beside the champion."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raypipe.cli import commands
from raypipe.errors import GateRefusedError
from raypipe.evaluation.names import METRICS

pytestmark = pytest.mark.slow  # projects built whole


def test_the_next_run_is_compared_with_the_champion_on_the_same_rows(made):
    p = made(evaluation__gate=["log_loss < base_rate + 1", "roc_auc >= champion - 1", "roc_auc < champion - 1"])
    run = p.steps.train(p.training_set)
    first = p.steps.evaluate(p.training_set, run)
    assert first.result["champion"] is None
    assert [f.outcome for f in first.verdict.findings] == ["pass"] * 3  # nothing to compare with yet
    p.steps.promote(p.steps.register(p.training_set, run, first))

    training = p.project.settings.training.model_copy(update={"params": {"max_depth": 2, "eta": 0.5}})
    project = replace(p.project, settings=p.project.settings.model_copy(update={"training": training}))
    steps = replace(p.steps, project=project)
    second = steps.evaluate(p.training_set, steps.train(p.training_set))
    told = second.result["champion"]
    assert (told["version"], told["why_not"]) == (1, None)
    for metric in METRICS["binary"]:
        served = first.result["model"][metric]
        assert second.result["intervals"]["champion"][metric][0] == pytest.approx(served)
        [apart, *_] = second.result["comparisons"]["champion"][metric]["difference"]
        assert apart == pytest.approx(second.result["model"][metric] - served)
    assert [f.outcome for f in second.verdict.findings] == ["pass", "pass", "fail"]
    assert p.steps.evaluate(p.training_set, run).output.reused


def test_a_rule_over_the_data_stops_before_training(made):
    p = made(evaluation__gate=["features.null_share == none", "roc_auc >= 0.5"])
    with pytest.raises(GateRefusedError, match="1 of 1 rules do not hold") as refused:
        commands.train(p.project.folder, "local", None)
    assert refused.value.got.startswith("features.null_share == none: ")
    assert not (p.project.storage / "runs").exists()

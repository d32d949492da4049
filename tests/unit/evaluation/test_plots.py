"""What the plots of a run show."""

from __future__ import annotations

import pytest

from raypipe.evaluation import plots

RUN = {"metric": "ndcg", "history": [0.5, 0.7, 0.6], "curve": [(1, 0.55), (3, 0.9)], "best_round": 1}


def test_a_learning_curve_has_both_parts_by_round_and_the_best_round():
    [axes] = plots.learning_curve(RUN).axes
    lines = {line.get_label(): ([*line.get_xdata()], [*line.get_ydata()]) for line in axes.lines}
    assert lines["validation"] == ([1, 2, 3], RUN["history"])
    assert lines["train"] == ([1, 3], [0.55, 0.9])
    assert lines["best: round 2, 0.7"][0] == [2, 2]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("round", "ndcg")


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (40, 30)])
def test_importance_shows_the_largest_on_top(count, shown):
    shares = {f"feature_{n}": 1 / (n + 1) for n in range(count)}
    [axes] = plots.importance(shares, top=30).axes
    assert len(axes.patches) == shown
    names = [label.get_text() for label in axes.get_yticklabels()] if shown else []
    assert names == [*shares][:shown][::-1]
    assert axes.get_xlabel() == "share of total gain"

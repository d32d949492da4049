"""Which trial is chosen, and which stand on the Pareto front. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from raypipe.tuning.journal import Finished


def choose(trials: Sequence[Finished], *, maximize: bool, within: float | None = None) -> Finished:
    """The trial with the best metric; the first of equals.

    within: with a second objective; of the trials whose metric is at most so much worse than the best one, that with
    the least second objective, of equals the one with the better metric.
    """
    measured = [trial for trial in trials if trial.value is not None]
    losses = {trial.number: loss(trial, maximize=maximize) for trial in measured}
    if within is None:
        return min(measured, key=lambda trial: (losses[trial.number], trial.number))
    limit = min(losses.values()) + within
    near = [trial for trial in measured if losses[trial.number] <= limit]
    return min(near, key=lambda trial: (second(trial), losses[trial.number], trial.number))


def pareto(trials: Sequence[Finished], *, maximize: bool) -> list[Finished]:
    """The trials that no other beats in one objective without being worse in the other, from the best metric on."""
    measured = [trial for trial in trials if trial.value is not None]
    ordered = sorted(measured, key=lambda trial: (loss(trial, maximize=maximize), second(trial), trial.number))
    front: list[Finished] = []
    for trial in ordered:
        if not front or second(trial) < second(front[-1]):
            front.append(trial)
    return front


def loss(trial: Finished, *, maximize: bool) -> float:
    """The metric as something to minimise."""
    assert trial.value is not None
    return -trial.value if maximize else trial.value


def second(trial: Finished) -> float:
    """The second objective, which is minimised."""
    assert trial.second is not None
    return trial.second

"""What a study found: as a document, and as a table of its trials. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from raypipe.project.params import canonical
from raypipe.tuning.choose import choose, loss, pareto
from raypipe.tuning.journal import Finished
from raypipe.tuning.space import defaults, edges, with_values
from raypipe.tuning.study import Study

NEAR_THE_LAST = 0.95  # of the rounds: a trial whose best round is later may want more of them


def trials_table(study: Study, trials: Sequence[Finished]) -> pl.DataFrame:
    """A row a trial, by number: its searched parameters, metric, rounds, seconds, status, second objective."""
    second = study.spec.second
    rows = [
        {
            "trial": trial.number,
            "status": trial.status,
            "metric": trial.value,
            **({second: trial.second} if second else {}),
            "best_round": trial.best_round,
            "rounds": trial.rounds,
            "seconds": trial.seconds,
            "error": trial.error,
            **{name: study.values(trial).get(name) for name in study.space},
        }
        for trial in trials
    ]
    types: dict[str, Any] = {"metric": pl.Float64, "best_round": pl.Int64, "error": pl.String}
    return pl.DataFrame(rows, schema_overrides=types, infer_schema_length=None, strict=False)


def result_of(study: Study, trials: Sequence[Finished]) -> dict[str, Any]:
    """tuning.json. At least one of the trials has a metric."""
    maximize, second = study.metric.maximize, study.spec.second
    chosen = choose(trials, maximize=maximize, within=study.within if second else None)
    first = next((trial for trial in trials if trial.number == 0 and trial.value is not None), None)
    rounds = study.spec.job.recipe.rounds
    searched = {canonical(name) for name in study.space}
    fixed = {name: value for name, value in study.spec.params.items() if canonical(name) not in searched}
    given = searched | {canonical(name) for name in fixed}
    kept = defaults(study.spec.job.recipe.params)
    return {
        "metric": study.metric.name,
        "maximize": maximize,
        "second": second,
        "within": study.within if second else None,
        "chosen": _told(study, chosen),
        "untuned": _told(study, first) if first else None,
        "gain": loss(first, maximize=maximize) - loss(chosen, maximize=maximize) if first else None,
        "params": with_values(study.spec.params, chosen.values),
        "space": {
            name: {
                "searched": searched if isinstance(searched, list) else searched.model_dump(),
                "untuned": study.untuned.get(name),
                "chosen": study.values(chosen).get(name),
            }
            for name, searched in study.space.items()
        },
        "fixed": fixed,
        "defaults": {name: value for name, value in kept.items() if name not in given},
        "edges": [asdict(edge) for edge in edges(study.space, chosen.values)],
        "rounds_exhausted": chosen.best_round is not None and chosen.best_round + 1 >= NEAR_THE_LAST * rounds,
        "rounds": rounds,
        "pareto": [_told(study, trial) for trial in pareto(trials, maximize=maximize)] if second else [],
        "trials": dict(Counter(trial.status for trial in trials)),
        "seconds": max(trial.ended_at_s for trial in trials),
    }


def _told(study: Study, trial: Finished) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "status": trial.status,
        "metric": trial.value,
        **({study.spec.second: trial.second} if study.spec.second else {}),
        "rounds": None if trial.best_round is None else trial.best_round + 1,
        "values": study.values(trial),
    }

"""Rules of a gate as project.yaml states them. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass

from raypipe.definitions import Definitions
from raypipe.definitions.durations import microseconds
from raypipe.definitions.label import Task
from raypipe.errors import ConfigurationError, DefinitionError, nearest
from raypipe.evaluation.names import BASELINES, CHAMPION, METRICS
from raypipe.project.evaluation_settings import Evaluation

WHERE = "project.yaml: evaluation.gate"
PROBES = ("single_feature", "shuffled_target", "shifted_features", "overlap", "known_time", "random_split")
AGES = ("age_of_data", "backtest.staleness")  # in seconds; a bound is a duration
_OF_ANY_TASK = (
    "features.useless", "behaviour.failed", "worst_slices.found", "latency.p50_ms", "latency.p99_ms",
    "backtest.staleness",
)  # fmt: skip
_OF_BINARY = (
    *(f"calibration.{name}" for name in ("ece", "slope", "intercept")),
    *(f"threshold.{name}" for name in ("precision", "recall", "specificity", "positive_rate")),
)
_RULE = re.compile(
    r"\s*([a-z][\w.]*)\s*(<=|>=|==|<|>)\s*(\S+?)\s*(?:([+-])\s*(\d+(?:\.\d+)?(?:e-?\d+)?))?\s*", re.ASCII
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Rule:
    """`<figure> <operator> <bound>`.

    bound: a number; an age in seconds; `none` is 0. With `model` (a baseline, or the champion) the figure of that model
    on the same rows, `bound` added.
    """

    text: str
    figure: str
    comparison: str
    bound: float
    model: str | None = None

    @property
    def of_data(self) -> bool:
        """Whether it can be decided before a model is trained."""
        return self.figure.startswith(("leakage", "features.null_share", "age_of_data"))


def known_figures(definitions: Definitions, settings: Evaluation) -> list[str]:
    """Everything that a rule of the project may name on its left side."""
    task = definitions.label.task
    slices = [f"slice.{column}.{metric}" for column in settings.slices for metric in METRICS[task]]
    of_task = _OF_BINARY if task == "binary" else ()
    return [*METRICS[task], *slices, *of_task, *_fairness(settings), *_OF_ANY_TASK, *_of_data(definitions)]


def _fairness(settings: Evaluation) -> list[str]:
    asked = settings.fairness
    kinds = ("difference", "ratio")
    return [f"fairness.{g}.{m}_{kind}" for g in asked.groups for m in asked.metrics for kind in kinds] if asked else []


def _of_data(definitions: Definitions) -> list[str]:
    """What is known before a model is trained: rules over these are decided first."""
    return [
        *("leakage", *(f"leakage.{probe}" for probe in PROBES)),
        *("features.null_share", *(f"features.null_share.{name}" for name in definitions.features())),
        *("age_of_data", *(f"age_of_data.{source.name}" for source in definitions.sources if not source.static)),
    ]


def rules_of(definitions: Definitions, settings: Evaluation) -> list[Rule]:
    """The project's gate. Raises ConfigurationError for a rule of an unknown form, or that names what is not known."""
    return [parse(text, definitions, settings) for text in settings.gate]


def parse(text: str, definitions: Definitions, settings: Evaluation) -> Rule:
    """The rule that `text` states. Raises ConfigurationError for an unknown form or name."""
    match = _RULE.fullmatch(text)
    if not match:
        raise _no_rule(text)
    figure, comparison, bound, sign, margin = match.groups()
    task = definitions.label.task
    _require_known(figure, known_figures(definitions, settings), text, task)
    offset = float(margin or 0) * (-1 if sign == "-" else 1)
    if figure.startswith(AGES):
        return Rule(text.strip(), figure, comparison, _seconds(bound, text) + offset)
    if bound == "none" or _NUMBER.fullmatch(bound):
        return Rule(text.strip(), figure, comparison, (0.0 if bound == "none" else float(bound)) + offset)
    return Rule(text.strip(), figure, comparison, offset, _model(bound, figure, text, task))


def _model(bound: str, figure: str, text: str, task: Task) -> str:
    """The model that the right side names: alone, or with the metric of the left side."""
    metric = figure.rpartition(".")[2]
    comparable = figure == metric or figure.startswith("slice.")
    models = (*BASELINES[task], CHAMPION)
    known = [f"{model}.{metric}" for model in models] if comparable and metric in METRICS[task] else []
    wanted = f"{bound}.{metric}" if bound in models else bound
    _require_known(wanted, known, text, task)
    return wanted.partition(".")[0]


def _require_known(name: str, known: list[str], text: str, task: Task) -> None:
    if name not in known:
        raise ConfigurationError(
            f"unknown figure '{name}' in a rule of a {task} label",
            where=WHERE,
            got=repr(text),
            hint=nearest(name, known) if known else "this figure is compared with a number",
        )


def _seconds(bound: str, text: str) -> float:
    try:
        return microseconds(bound, where=WHERE) / 1e6
    except DefinitionError:
        raise ConfigurationError(
            "an age is compared with a duration", where=WHERE, got=repr(text), expected="as 36h, 7d"
        ) from None


def _no_rule(text: str) -> ConfigurationError:
    return ConfigurationError(
        "not a rule",
        where=WHERE,
        got=repr(text),
        expected="<figure> <, <=, ==, > or >= <number, duration, none, champion or baseline.metric> [+- margin]",
    )

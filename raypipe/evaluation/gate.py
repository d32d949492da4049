"""The gate: rules over measured figures, decided by a pure function."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from raypipe.definitions.label import Task
from raypipe.errors import ConfigurationError, GateRefusedError, nearest
from raypipe.evaluation.names import BASELINES, METRICS

Outcome = Literal["pass", "fail", "inconclusive"]
Figures = Mapping[str, float]

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_RULE = re.compile(
    r"\s*([a-z][a-z0-9_.]*)\s*(<=|>=|<|>)\s*([a-z][a-z0-9_.]*|-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*(?:([+-])\s*(\d+(?:\.\d+)?))?\s*"
)


@dataclass(frozen=True)
class Rule:
    """`<metric> <operator> <number or baseline.metric> [+ or - margin]`."""

    text: str
    metric: str
    comparison: str
    bound: str | float
    margin: float = 0.0


@dataclass(frozen=True)
class Finding:
    """One rule with its figures and what came of it."""

    rule: str
    outcome: Outcome
    got: float | None
    bound: float | None


@dataclass(frozen=True)
class Verdict:
    """All rules together: fail if one fails, else inconclusive if one could not be decided, else pass."""

    outcome: Outcome
    findings: list[Finding]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def require_pass(self) -> None:
        """Raise GateRefusedError, naming every rule that does not hold with its figures."""
        if self.outcome == "pass":
            return
        broken = [f for f in self.findings if f.outcome != "pass"]
        figures = "; ".join(f"{f.rule}: got {_figure(f.got)}, bound {_figure(f.bound)} ({f.outcome})" for f in broken)
        raise GateRefusedError(
            f"the gate says {self.outcome}: {len(broken)} of {len(self.findings)} rules do not hold",
            where="project.yaml: evaluation.gate",
            got=figures,
            hint="improve the model, or change the rule and say why in the commit",
        )


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def known_names(task: Task) -> list[str]:
    """Everything a rule of the task may name."""
    return [*METRICS[task], *(f"{baseline}.{metric}" for baseline in BASELINES[task] for metric in METRICS[task])]


def parse(text: str, task: Task) -> Rule:
    """The rule that `text` states for a model of the task. Raises ConfigurationError for an unknown form or name."""
    where = "project.yaml: evaluation.gate"
    match = _RULE.fullmatch(text)
    if not match:
        raise ConfigurationError(
            "not a rule",
            where=where,
            got=repr(text),
            expected="<metric> <, <=, > or >= <number or baseline.metric> [+- margin]",
        )
    metric, comparison, bound, sign, margin = match.groups()
    for name in (metric, bound):
        if name[0].isalpha() and name not in known_names(task):
            raise ConfigurationError(
                f"unknown figure '{name}' in a rule of a {task} label",
                where=where,
                got=repr(text),
                hint=nearest(name, known_names(task)),
            )
    offset = float(margin or 0) * (-1 if sign == "-" else 1)
    return Rule(text.strip(), metric, comparison, bound if bound[0].isalpha() else float(bound), offset)


def judge(rules: Sequence[Rule], figures: Figures) -> Verdict:
    """Decide every rule over the figures (by the names of `known_names`); a missing one is inconclusive."""
    findings = [_decide(rule, figures) for rule in rules]
    outcomes = {finding.outcome for finding in findings}
    worst: Outcome = "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
    return Verdict(worst, findings)


def _decide(rule: Rule, figures: Figures) -> Finding:
    got = figures.get(rule.metric)
    bound = rule.bound if isinstance(rule.bound, float) else figures.get(rule.bound)
    if got is None or bound is None or math.isnan(got) or math.isnan(bound):
        return Finding(rule.text, "inconclusive", got, bound)
    bound += rule.margin
    return Finding(rule.text, "pass" if OPERATORS[rule.comparison](got, bound) else "fail", got, bound)

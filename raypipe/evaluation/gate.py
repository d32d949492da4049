"""The gate: rules over measured figures, decided by a pure function, in three values.

A figure passes a rule when its whole interval does, fails when none of it does, and is inconclusive between, where
more rows would narrow it, and without an interval. A rule against another model is decided on the difference on the
same rows.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from raypipe.errors import GateRefusedError
from raypipe.evaluation.figure import Figure, more_rows
from raypipe.evaluation.names import CHAMPION
from raypipe.evaluation.rules import Rule

Outcome = Literal["pass", "fail", "inconclusive"]
_WORST_FIRST: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Case:
    """A figure that a rule is tried on, of which a rule over slices has many.

    of: the slice's value, else empty. against: by model, the difference to that model's figure on the same rows.
    """

    figure: Figure
    of: str = ""
    against: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What a gate decides on. cases: by the names of rules.known_figures; a name that is missing was not measured.

    champion: whether there is a champion to compare with.
    """

    cases: Mapping[str, Sequence[Case]]
    champion: bool = False


@dataclass(frozen=True)
class Finding:
    """One rule with its figures and what came of it.

    low, high: the interval of `got`, against another model of `got` on the same rows when the other's is `bound`: the
    rule holds for all of it, or for none, or is inconclusive. more_rows: how many more test rows would decide.
    """

    rule: str
    outcome: Outcome
    got: float | None
    bound: float | None
    low: float | None = None
    high: float | None = None
    more_rows: int | None = None
    says: str = ""


@dataclass(frozen=True)
class Verdict:
    """All rules together: fail if one fails, else inconclusive if one could not be decided, else pass."""

    outcome: Outcome
    findings: list[Finding]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def require_pass(self) -> None:
        """Raise GateRefusedError, naming every rule that does not hold with its figures."""
        if self.outcome != "pass":
            raise self.refusal()

    def require_no_fail(self) -> None:
        """Raise GateRefusedError if a rule fails; what could not be decided is let through."""
        if self.outcome == "fail":
            raise self.refusal()

    def refusal(self) -> GateRefusedError:
        broken = [finding for finding in self.findings if finding.outcome != "pass"]
        return GateRefusedError(
            f"the gate says {self.outcome}: {len(broken)} of {len(self.findings)} rules do not hold",
            where="project.yaml: evaluation.gate",
            got="; ".join(f"{finding.rule}: {finding.says} ({finding.outcome})" for finding in broken),
            hint="improve the model, or change the rule and say why in the commit"
            if self.outcome == "fail"
            else "test on more rows, or promote with --override and a reason",
        )


def judge(rules: Sequence[Rule], evidence: Evidence) -> Verdict:
    """Decide every rule; what was not measured is inconclusive."""
    findings = [_decide(rule, evidence) for rule in rules]
    return Verdict(_worst(findings), findings)


def _worst(findings: Sequence[Finding]) -> Outcome:
    outcomes = {finding.outcome for finding in findings}
    return next((outcome for outcome in _WORST_FIRST if outcome in outcomes), "pass")


def _decide(rule: Rule, evidence: Evidence) -> Finding:
    """Over several cases (slices) the one that decides: one that fails, else that is undecided, else the closest."""
    if rule.model == CHAMPION and not evidence.champion:
        return Finding(rule.text, "pass", None, None, says="there is no champion to compare with")
    cases = evidence.cases.get(rule.figure, ())
    if not cases:
        return Finding(rule.text, "inconclusive", None, None, says="was not measured")
    findings = [_try(rule, case) for case in cases]
    worst = _worst(findings)
    return min((finding for finding in findings if finding.outcome == worst), key=_distance)


def _distance(finding: Finding) -> float:
    """How far the rule is from breaking, relative to the bound: below 0 where it is broken."""
    if finding.got is None or finding.bound is None:
        return -math.inf
    apart = abs(finding.got - finding.bound)
    return apart if finding.outcome == "pass" else -apart


def _try(rule: Rule, case: Case) -> Finding:
    got = case.figure.value
    over = _over(rule, case)
    if got is None or over is None or over.value is None or math.isnan(over.value):
        said = "was not measured" if got is None else f"has no difference to {rule.model}"
        return Finding(rule.text, "inconclusive", got, None, says=_of(case, said))
    bound = got - over.value
    low, high = (None if end is None else bound + end for end in (over.low, over.high))
    outcome = _outcome(OPERATORS[rule.comparison], over)
    more = more_rows(over, 0.0) if outcome == "inconclusive" else None
    said = _of(case, _says(rule, Figure(got, low, high), bound, more))
    return Finding(rule.text, outcome, got, bound, low, high, more, said)


def _over(rule: Rule, case: Case) -> Figure | None:
    """By how much the figure lies over its bound, with the interval."""
    if rule.model is None:
        return _less(case.figure, rule.bound)
    found = case.against.get(rule.model)
    return None if found is None else _less(found, rule.bound)


def _less(figure: Figure, by: float) -> Figure:
    value, low, high = (None if v is None else v - by for v in (figure.value, figure.low, figure.high))
    return Figure(value, low, high, figure.rows)


def _outcome(holds: Callable[[float, float], bool], over: Figure) -> Outcome:
    assert over.value is not None
    if over.low is None or over.high is None:
        return "inconclusive"
    held = [holds(end, 0.0) for end in (over.low, over.value, over.high)]
    return "pass" if all(held) else "inconclusive" if any(held) else "fail"


def _says(rule: Rule, got: Figure, bound: float, more: int | None) -> str:
    interval = (
        "" if got.low is None or got.high is None or got.low == got.high else f" ({got.low:.4g} to {got.high:.4g})"
    )
    other = "" if rule.model is None else f" from {rule.model}"
    needed = f"; about {more:,} more test rows would decide" if more else ""
    return f"{got.value:.4g}{interval}, bound {bound:.4g}{other}{needed}"


def _of(case: Case, said: str) -> str:
    return f"{case.of}: {said}" if case.of else said

"""The words and numbers of the report and the model card, for people who did not measure. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raypipe.evaluation.gate import Finding, Verdict
from raypipe.evaluation.names import LOWER_IS_BETTER
from raypipe.evaluation.rules import AGES

NONE = "\N{EN DASH}"  # stands where there is no figure

MEANINGS = {
    "roc_auc": "how often the model scores a random positive above a random negative; 0.5 is a coin toss, 1 is perfect",
    "log_loss": "the penalty for confident mistakes; lower is better, 0 is perfect",
    "average_precision": "the mean precision over all thresholds; chance is the share of positives, 1 is perfect",
    "brier": "the mean squared distance of probability and outcome; lower is better, 0 is perfect",
    "calibration_error": "how far a stated probability is from what happens, on average; lower is better, 0 is perfect",
    "accuracy": "the share of rows whose most probable class is the true one; 1 is perfect",
    "rmse": "the typical size of an error, in the label's unit, large ones counting more; lower is better",
    "mae": "the mean size of an error, in the label's unit; lower is better",
    "r2": "the share of the label's variance that is explained; 0 is no better than the mean, 1 is perfect",
    "ndcg_at_10": "how much of the possible relevance stands in the first ten places; 1 is perfect",
    "ndcg": "how much of the possible relevance stands early in the order; 1 is perfect",
}
PROBES = {
    "single_feature": "does one feature alone say the answer",
    "shuffled_target": "was a feature made from the answers",
    "shifted_features": "does the score collapse without the newest knowledge",
    "overlap": "do test rows also stand among those learned from",
    "known_time": "do features hold only what was known at their time",
    "random_split": "would dividing the rows at random look much better",
}
_TITLES = {"pass": "Passed", "fail": "Failed", "inconclusive": "Undecided"}


def number(value: Any) -> str:
    """A number for people: counts with their thousands, else four significant digits; a dash for None."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"


def share(value: float | None) -> str:
    """A share in percent, one digit after the point; small ones are said to be small."""
    if value is None or not math.isfinite(value):
        return NONE
    return "below 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def confidence(value: float | None) -> str:
    return "the asked" if value is None else f"{100 * value:.4g} %"


def interval(figure: Any) -> str:
    """`[value, low, high]` as "0.738 (0.731 to 0.744)", with the digits that the interval's width allows; a value
    without ends, or a plain number, as itself."""
    value, low, high = ends(figure)
    if value is None or low is None or high is None or low == high:
        return number(value)
    digits = _digits(high - low)
    first, second, third = (f"{round(end, digits) + 0.0:,.{digits}f}" for end in (value, low, high))  # + 0.0: no "-0"
    return f"{first} ({second} to {third})"


def ends(figure: Any) -> tuple[float | None, float | None, float | None]:
    """Value, low and high of `[value, low, high]`, of a plain number or of None."""
    if isinstance(figure, Sequence) and not isinstance(figure, str):
        value, low, high = (*figure, None, None, None)[:3]
        return value, low, high
    return figure, None, None


def _digits(width: float) -> int:
    """Digits after the point that show a difference of `width` in two places."""
    return min(max(1 - math.floor(math.log10(width)), 0), 6) if width > 0 else 4


def better(metric: str, difference: Any) -> tuple[str, str]:
    """What a difference (model minus other) says: `better`, `worse` or `same`, and the sentence.

    A difference whose interval holds 0 is none.
    """
    value, low, high = ends(difference)
    if value is None:
        return "same", NONE
    if low is not None and high is not None and low <= 0 <= high:
        return "same", f"no clear difference: {interval(difference)}"
    good = (value < 0) == (metric in LOWER_IS_BETTER)
    apart = [abs(value), *sorted(abs(end) for end in (low, high) if end is not None)]
    return ("better", f"better by {interval(apart)}") if good else ("worse", f"worse by {interval(apart)}")


def described(counts: Mapping[str, Any]) -> str:
    """What is told of the labels of some rows beside their number."""
    words: dict[str, Callable[[Any], str]] = {
        "positive_share": lambda value: f"{share(value)} positive",
        "classes": lambda count: f"{count:,} classes",
        "mean": lambda mean: f"mean {number(mean)}",
        "groups": lambda count: f"{count:,} groups",
    }
    return ", ".join(say(counts[name]) for name, say in words.items() if counts.get(name) is not None)


def day(moment: str | None) -> str:
    """The date of an ISO 8601 moment."""
    return NONE if moment is None else str(moment)[:10]


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits them; a dash for none and for without end."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    for unit, size in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{number(round(seconds / size, 1))} {unit}"
    return f"{seconds:.2g} s"


def size(count: float | None) -> str:
    """Bytes in the unit that suits them."""
    if count is None:
        return NONE
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{number(round(count))} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def where(conditions: Sequence[Mapping[str, Any]]) -> str:
    """A slice's conditions as one phrase."""
    return " and ".join(f"{c.get('feature')} is {'missing' if c.get('is') is None else c['is']}" for c in conditions)


def movers(row: Mapping[str, Any], most: int = 3) -> str:
    """The features that moved a row's score most, with what they added to the margin and their values; a personal one
    has none."""
    features, added = row.get("features") or {}, row.get("contributions") or {}
    moved = [(name, value) for name, value in added.items() if name != "bias" and value]
    largest = sorted(moved, key=lambda item: -abs(item[1]))[:most]
    told = {name: f"{name} = {number(features[name])}" if name in features else name for name, _ in largest}
    return "; ".join(f"{told[name]}: {value:+.2f}" for name, value in largest)


def example(found: Mapping[str, Any] | None) -> str:
    """The row that failed a behaviour test most: its values and its score, before and after the change."""
    if not found:
        return ""
    new = found.get("changed") or {}
    told = [f"{name} {_became(value, new.get(name))}" for name, value in (found.get("values") or {}).items()]
    score = f"score {_became(found.get('score'), found.get('score_changed'))}"
    return f"row {found.get('row')}: {', '.join([*told, score])}"


def _became(before: Any, after: Any) -> str:
    """before, after: values, or a score by class."""
    first, second = ("/".join(map(number, v)) if isinstance(v, list) else number(v) for v in (before, after))
    return first if after is None else f"{first}, changed to {second}"


def at_shares(gain: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of a gain curve the points nearest to 1, 5, 10, 20 and 50 % of the rows, each once."""
    known = [point for point in gain if point.get("share") and point.get("captured") is not None]
    found: list[Mapping[str, Any]] = []
    for wanted in (0.01, 0.05, 0.1, 0.2, 0.5) if known else ():
        nearest = min(known, key=lambda point: abs(point["share"] - wanted))
        if nearest not in found:
            found.append(nearest)
    return found


def by_age(backtest: Mapping[str, Any]) -> list[tuple[float, list[Any]]]:
    """Each age of a back-test in days with the metric of each origin's model, None where it did not get so old."""
    found = [{age["age_days"]: age.get("metric") for age in of["ages"]} for of in backtest.get("origins") or []]
    return [(age, [ages.get(age) for ages in found]) for age in sorted({age for ages in found for age in ages})]


# ---- the verdict -------------------------------------------------------------------------------


def verdict_title(verdict: Verdict) -> str:
    return _TITLES[verdict.outcome]


def verdict_means(verdict: Verdict) -> str:
    """What follows from the verdict, in one or two sentences."""
    found, rules = verdict.findings, _rules(len(verdict.findings))
    if verdict.outcome == "pass":
        return f"The model may be released: it meets {'its only rule' if len(found) == 1 else f'all {rules}'}."
    if verdict.outcome == "fail":
        return f"The model must not be released: it breaks {len(deciders(verdict))} of {rules}."
    more = [f.more_rows for f in found if f.more_rows]
    wait = f" About {max(more):,} more test rows would decide." if more else ""
    return f"The model is not released yet: the test rows cannot decide {len(deciders(verdict))} of {rules}.{wait}"


def _rules(count: int) -> str:
    return f"{count} rule" if count == 1 else f"{count} rules"


def deciders(verdict: Verdict) -> list[Finding]:
    """The findings that made the verdict: those as bad as it; of a pass the one whose interval came closest to its
    bound."""
    if verdict.outcome != "pass":
        return [f for f in verdict.findings if f.outcome == verdict.outcome]
    apart = [(room, at) for at, f in enumerate(verdict.findings) if (room := _room(f)) is not None]
    return [verdict.findings[min(apart)[1]]] if apart else []


def _room(finding: Finding) -> float | None:
    """How far the interval is from the bound, in its own width; None without one, which is no close call."""
    got, bound, low, high = finding.got, finding.bound, finding.low, finding.high
    if got is None or bound is None or low is None or high is None or low == high:
        return None
    return abs((low if got >= bound else high) - bound) / (high - low)


def measured(finding: Finding) -> list[float | None]:
    """The finding's figure as `[value, low, high]`."""
    return [finding.got, finding.low, finding.high]


def in_unit(rule: str, figure: Any) -> str:
    """A rule's figure or bound in the unit of what the rule is about: ages are seconds."""
    return duration(ends(figure)[0]) if rule.strip().startswith(AGES) else interval(figure)

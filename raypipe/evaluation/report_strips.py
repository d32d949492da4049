"""The report's tables that are drawn row by row: figures with intervals on one scale, and bars. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from raypipe.evaluation.names import title
from raypipe.evaluation.report_plots import MODEL, OTHER
from raypipe.evaluation.report_words import ends, interval, number, share
from raypipe.evaluation.svg import Axis, Strip, percent

Row = Mapping[str, Any]
MOST_SLICES, MOST_FEATURES = 25, 15  # rows of a table; evaluation.json has all


@dataclass(frozen=True)
class Drawn:
    """A table with a drawn column: its head, and each row's data, its figure in words and what is drawn.

    left_out: how many further rows evaluation.json has. against: whether rows are compared with a champion.
    """

    head: Markup
    rows: Sequence[tuple[Row, str, Markup]]
    left_out: int = 0
    against: bool = False


def compared(result: Row, metric: str) -> Drawn | None:
    """The model, the champion where there is one and the baselines, by one metric."""
    plain = {"model": result.get("model"), "champion": None} | (result.get("baselines") or {})
    intervals = result.get("intervals") or {}
    named = {name: of_metric((of or {}) | {"intervals": intervals.get(name)}, metric) for name, of in plain.items()}
    rows = [({"name": name}, figure) for name, figure in named.items() if figure is not None]
    return _forest(title(metric), rows, None, kind=lambda row: MODEL if row["name"] == "model" else OTHER)


def slices(result: Row, metric: str) -> dict[str, Drawn]:
    """The slices of each column by one metric, the largest first; those without figures are drawn empty."""
    made, overall = {}, ends(of_metric(model_figures(result), metric))[0]
    for column, found in (result.get("slices") or {}).items():
        shown = (found or [])[:MOST_SLICES]
        drawn = _forest(title(metric), [(row, of_metric(row, metric)) for row in shown], overall)
        if drawn:
            against = any(row.get("champion") for row in shown)
            made[column] = Drawn(drawn.head, drawn.rows, len(found) - len(shown), against)
    return made


def worst_slices(found: Row) -> Drawn | None:
    """The slices where the model loses most, by their loss."""
    rows = [(row, row.get("loss")) for row in found.get("found") or []]
    rest = next((row.get("rest") for row, _ in rows if row.get("rest") is not None), None)
    return _forest(title(str(found.get("metric") or "loss")), rows, rest, kind=lambda row: OTHER)


def usefulness(found: Sequence[Row]) -> Drawn | None:
    """How much worse the metric gets without each feature, the most useful first; the useless ones are told apart."""
    rows = [(row, row.get("drop")) for row in found if not row.get("useless")]
    rows.sort(key=lambda pair: -(ends(pair[1])[0] or 0))
    metric = next((title(row["metric"]) for row, _ in rows if row.get("metric")), "metric")
    drawn = _forest(f"what {metric} loses", rows[:MOST_FEATURES], 0.0)
    return drawn and Drawn(drawn.head, drawn.rows, len(rows) - len(drawn.rows))


def bars(label: str, values: Mapping[str, float | None], *, shares: bool = False) -> Drawn | None:
    """Bars by feature, the largest first."""
    known = sorted(((n, v) for n, v in values.items() if v is not None), key=lambda item: -item[1])
    if not known or known[0][1] <= 0:
        return None
    say = share if shares else number
    strip = Strip(Axis(label, 0, known[0][1], percent) if shares else Axis(label, 0, known[0][1]))
    rows = [({"name": n}, say(v), strip.bar(MODEL, v, f"{n}: {say(v)}")) for n, v in known[:MOST_FEATURES]]
    return Drawn(strip.head(), rows, len(known) - len(rows))


def of_metric(row: Row, metric: str) -> Any:
    """A row's figure with its interval where it has one, else the plain figure or None."""
    return (row.get("intervals") or {}).get(metric) or row.get(metric)


def model_figures(result: Row) -> Row:
    """The model's figures as a row with intervals."""
    return (result.get("model") or {}) | {"intervals": (result.get("intervals") or {}).get("model") or {}}


def _forest(
    label: str, rows: Sequence[tuple[Row, Any]], reference: float | None, kind: Callable[[Row], str] = lambda row: MODEL
) -> Drawn | None:
    """A table of figures on one scale, a row without one left empty; None where none has one."""
    found = [ends(figure) for _, figure in rows]
    values = [value for value, _, _ in found if value is not None]
    if not values:
        return None
    intervals = [(low, high) for _, low, high in found if low is not None and high is not None]
    strip = Strip(Axis.around(label, values if reference is None else [*values, reference], intervals), reference)
    return Drawn(strip.head(), [(row, interval(figure), _mark(strip, kind(row), figure)) for row, figure in rows])


def _mark(strip: Strip, kind: str, figure: Any) -> Markup:
    value, low, high = ends(figure)
    if value is None:
        return Markup("")
    return strip.interval(kind, value, low, high, f"{strip.axis.label} {interval(figure)}")

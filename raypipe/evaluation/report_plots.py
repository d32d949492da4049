"""The report's plots, made of an evaluation's figures. Pure; None where there is too little to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from raypipe.evaluation.names import title
from raypipe.evaluation.report_words import ends, interval, number, share
from raypipe.evaluation.svg import Axis, Plot, Point, Span, percent, plain, swatch

Rows = Sequence[Mapping[str, Any]]
MODEL, OTHER, REFERENCE, GOOD = "model", "other", "reference", "good"  # classes of the style sheet


@dataclass(frozen=True)
class Drawing:
    """A plot with its title, its legend (sign and words) and a sentence on how to read it."""

    title: str
    svg: Markup
    legend: list[tuple[Markup, str]]
    reads: str


def drawings(result: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Drawing | None]:
    """Every plot of the report by name; result: evaluation.json; run: a run's manifest or the part of it that says how
    it learned."""
    curves, figures = result.get("curves") or {}, result.get("model") or {}
    backtest = result.get("backtest") or {}
    intervals = (result.get("intervals") or {}).get("model") or {}
    told = {name: intervals.get(name) or figures.get(name) for name in ("roc_auc", "average_precision")}
    return {
        "roc": roc(curves.get("roc") or [], told["roc_auc"]),
        "precision_recall": precision_recall(
            curves.get("precision_recall") or [], told["average_precision"], figures.get("positive_share")
        ),
        "gain": gain(curves.get("gain") or []),
        "scores": scores(curves.get("scores") or [], (result.get("threshold") or {}).get("value")),
        "calibration": calibration((result.get("calibration") or {}).get("bins") or []),
        "decay": decay(backtest.get("by_age") or [], str(backtest.get("metric"))),
        "lost": lost(backtest.get("by_age") or [], backtest.get("tolerance"), backtest.get("staleness_days")),
        "learning": learning(run),
    }


def roc(curve: Rows, area: Any) -> Drawing | None:
    points = _points(curve, "fpr", "tpr")
    if len(points) < 2:
        return None
    plot = Plot(
        Axis("share of negatives flagged (false alarms)", say=percent),
        Axis("share of positives found", say=percent),
    )
    plot.line(REFERENCE, [(0, 0), (1, 1)]).band(MODEL, _spans(curve, "fpr")).line(MODEL, points)
    return Drawing(
        "Finding positives (ROC)",
        plot.svg(f"ROC curve of the model; the area below it is {interval(area)}, that of chance is 0.5"),
        [*_with_band(curve, f"model, area {interval(area)}"), (swatch("line", REFERENCE), "chance")],
        "Each point is a threshold. The further the curve bends to the upper left, the better.",
    )


def precision_recall(curve: Rows, area: Any, positives: float | None) -> Drawing | None:
    points = _points(curve, "recall", "precision")
    if len(points) < 2:
        return None
    plot = Plot(Axis("share of positives found", say=percent), Axis("flagged rows that are positive", say=percent))
    legend = _with_band(curve, f"model, average precision {interval(area)}")
    if positives is not None:
        plot.level(REFERENCE, positives)
        legend.append((swatch("line", REFERENCE), f"chance: {share(positives)} are positive"))
    plot.band(MODEL, _spans(curve, "recall")).line(MODEL, points)
    says = f"Precision by recall of the model; average precision {interval(area)}"
    reads = "The price of finding more: how many of the flagged rows are still right."
    return Drawing("Being right when flagging (precision and recall)", plot.svg(says), legend, reads)


def gain(curve: Rows) -> Drawing | None:
    points = _points(curve, "share", "captured")
    if len(points) < 2:
        return None
    plot = Plot(Axis("share of rows, highest scores first", say=percent), Axis("share of positives found", say=percent))
    plot.line(REFERENCE, [(0, 0), (1, 1)]).line(MODEL, points)
    return Drawing(
        "What working from the top finds (gain)",
        plot.svg("Share of all positives that is found by share of rows, those with the highest scores first"),
        [(swatch("line", MODEL), "by score"), (swatch("line", REFERENCE), "in any order")],
        "If only so many rows can be acted on, this share of the positives is reached.",
    )


def scores(bins: Rows, threshold: float | None) -> Drawing | None:
    totals = {kind: sum(b.get(kind) or 0 for b in bins) for kind in ("negative", "positive")}
    if not all(totals.values()):
        return None
    spans = {kind: [(b["from"], b["to"], (b.get(kind) or 0) / total) for b in bins] for kind, total in totals.items()}
    low, high = bins[0]["from"], bins[-1]["to"]
    tallest = max(height for found in spans.values() for *_, height in found)
    plot = Plot(Axis("score", low, high), Axis("share of those rows", 0, tallest * 1.05, percent))
    plot.steps(MODEL, spans["negative"]).steps(OTHER, spans["positive"])
    legend = [
        (swatch("column", MODEL), f"negative rows ({number(totals['negative'])})"),
        (swatch("column", OTHER), f"positive rows ({number(totals['positive'])})"),
    ]
    if threshold is not None and low <= threshold <= high:
        plot.upright(REFERENCE, threshold)
        legend.append((swatch("line", REFERENCE), f"threshold {number(threshold)}"))
    says = "Shares of negative and of positive rows by score"
    return Drawing("Scores", plot.svg(says), legend, "The less the two overlap, the better they are told apart.")


def calibration(bins: Rows) -> Drawing | None:
    points = _points(bins, "predicted", "observed")
    if not points:
        return None
    most = min(max(value for point in [*points, *_ends_of(bins)] for value in point) * 1.05, 1.0)
    plot = Plot(Axis("predicted probability", 0, most, percent), Axis("observed share", 0, most, percent))
    plot.line(REFERENCE, [(0, 0), (most, most)]).errors(MODEL, _spans(bins, "predicted"))
    plot.line(MODEL, points).dots(MODEL, points)
    return Drawing(
        "Calibration",
        plot.svg(f"Observed share of positives by predicted probability in {len(points)} bins"),
        [(swatch("dot", MODEL), "model, with intervals"), (swatch("line", REFERENCE), "perfect")],
        "On the diagonal, a stated 30 % comes true in 30 of 100 cases. Below it, the model says too much.",
    )


def decay(by_age: Rows, metric: str) -> Drawing | None:
    """The metric by the age of the model, over all origins together."""
    points = [(age["age_days"], ends(age.get("metric"))) for age in by_age]
    plot = _by_age(title(metric), points)
    if plot is None:
        return None
    svg = plot.svg(f"{title(metric)} by the age of the model in days")
    legend = [(swatch("dot", MODEL), "models trained in the past, with intervals")]
    return Drawing(
        f"{title(metric)} by age", svg, legend, "Some weeks are harder than others, whatever the model's age."
    )


def lost(by_age: Rows, tolerance: float | None, staleness: float | None) -> Drawing | None:
    """What a model has lost of its quality since it was new, with how hard each time is taken out."""
    points = [(age["age_days"], ends(age.get("worse"))) for age in by_age]
    plot = _by_age("quality lost since new", points, percent, *([] if tolerance is None else [tolerance]))
    if plot is None:
        return None
    legend = [(swatch("dot", MODEL), "lost since new, with intervals")]
    if tolerance is not None:
        plot.level(OTHER, tolerance)
        legend.append((swatch("line", OTHER), f"tolerated: {share(tolerance)}"))
    if staleness is not None:
        plot.upright(REFERENCE, staleness)
        legend.append((swatch("line", REFERENCE), f"train again after {number(staleness)} days"))
    svg = plot.svg("Share of the quality of a new model that is lost, by age in days")
    return Drawing(
        "What age costs",
        svg,
        legend,
        "Measured against models that know the same weeks, so that hard weeks count for nothing.",
    )


def _by_age(
    label: str,
    points: Sequence[tuple[float, tuple[float | None, float | None, float | None]]],
    say: Callable[[float], str] = plain,
    *also: float,
) -> Plot | None:
    known = [(x, value) for x, (value, _, _) in points if value is not None]
    spans = [(x, low, high) for x, (_, low, high) in points if low is not None and high is not None]
    if len(known) < 2:
        return None
    values, intervals = [*(y for _, y in known), *also], [(low, high) for _, low, high in spans]
    oldest = max(x for x, _ in known)
    plot = Plot(Axis("age of the model, days", 0, oldest * 1.03 or 1), Axis.around(label, values, intervals, say))
    return plot.errors(MODEL, spans).line(MODEL, known).dots(MODEL, known)


def learning(run: Mapping[str, Any]) -> Drawing | None:
    """The metric by round on validation and train, with the best round."""
    history, best = run.get("history") or [], run.get("best_round")
    if len(history) < 2 or best is None:
        return None
    validation = list(enumerate(history, 1))
    train = [(round_, value) for round_, value in run.get("curve") or []]
    plot = Plot(Axis("round", 0, len(history)), Axis.around(str(run.get("metric")), [y for _, y in validation + train]))
    plot.upright(REFERENCE, best + 1).line(OTHER, train).line(MODEL, validation).dots(MODEL, [validation[best]])
    return Drawing(
        "Learning curve",
        plot.svg(f"{run.get('metric')} by round on validation and train; best at round {best + 1}"),
        [
            (swatch("line", MODEL), "validation"),
            (swatch("line", OTHER), "train"),
            (swatch("line", REFERENCE), f"kept: round {best + 1}, {number(history[best])}"),
        ],
        "Where validation stops getting better while train goes on, more rounds would only learn by heart.",
    )


# ---- points out of JSON ------------------------------------------------------------------------


def _points(rows: Rows, x: str, y: str) -> list[Point]:
    return [(row[x], row[y]) for row in rows if row.get(x) is not None and row.get(y) is not None]


def _spans(rows: Rows, x: str) -> list[Span]:
    """Place and interval of the rows that have one."""
    return [(row[x], row["low"], row["high"]) for row in rows if _sure(row) and row.get(x) is not None]


def _ends_of(rows: Rows) -> list[Point]:
    return [(row["low"], row["high"]) for row in rows if _sure(row)]


def _sure(row: Mapping[str, Any]) -> bool:
    return row.get("low") is not None and row.get("high") is not None


def _with_band(rows: Rows, says: str) -> list[tuple[Markup, str]]:
    """The model's entry in a legend, and that of its band where there is one."""
    band = [(swatch("band", MODEL), "where the true curve may lie")] if any(map(_sure, rows)) else []
    return [(swatch("line", MODEL), says), *band]

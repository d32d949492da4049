"""The plots of the tracked runs, as matplotlib figures that no window shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MODEL, _TRAIN, _BEST = "#1f5fa8", "#d08a2e", "#b5402a"


def learning_curve(run: Mapping[str, Any]) -> Figure:
    """The metric by round on validation and train, with the best round; `run` is a run's manifest."""
    figure, axes = _figure()
    history, best = run["history"], run["best_round"]
    axes.plot(range(1, len(history) + 1), history, color=_MODEL, label="validation")
    axes.plot(*zip(*run["curve"], strict=True), color=_TRAIN, marker=".", markersize=4, linewidth=1, label="train")
    said = f"best: round {best + 1}, {history[best]:.4g}"
    axes.axvline(best + 1, color=_BEST, linewidth=1, linestyle="--", label=said)
    axes.plot([best + 1], [history[best]], color=_BEST, marker="o", markersize=4)
    axes.set(xlabel="round", ylabel=run["metric"])
    axes.legend(frameon=False, fontsize=8)
    return figure


def importance(shares: Mapping[str, float], top: int) -> Figure:
    """The `top` features by share of the total gain; `shares` has the largest first."""
    shown = list(shares.items())[:top][::-1]
    figure, axes = _figure(height=max(3.6, 0.2 * len(shown) + 0.6))
    axes.barh([name for name, _ in shown], [value for _, value in shown], color=_MODEL)
    axes.set(xlabel="share of total gain", ylabel="feature")
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    return figure


def _figure(height: float = 3.6) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, height), layout="constrained")
    return figure, figure.subplots()

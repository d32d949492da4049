"""The evaluation report: one self-contained HTML page, plots included."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raypipe.evaluation.gate import Verdict
from raypipe.evaluation.names import METRICS


def write_report(path: Path, model: str, result: dict[str, Any], verdict: Verdict) -> None:
    """Write the page to `path`; names and values are escaped."""
    environment = Environment(loader=PackageLoader("raypipe.evaluation"), autoescape=True, undefined=StrictUndefined)
    environment.filters["figure"] = lambda value: "" if value is None else f"{value:.4f}"
    page = environment.get_template("report.html").render(
        model=model,
        result=result,
        verdict=verdict,
        metrics=METRICS,
        plots={
            "calibration": _plot(_calibration, result["calibration"]),
            "history": _plot(_history, result["run"]["history"]),
            "importance": _plot(_importance, result["importance"]),
        },
    )
    path.write_text(page, encoding="utf-8")


def _plot(draw: Any, values: Any) -> str:
    """A plot as a data URI."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    draw(figure.subplots(), values)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(image.getvalue()).decode()


def _calibration(axes: Any, bins: list[dict[str, Any]]) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="perfect")
    axes.plot([b["predicted"] for b in bins], [b["observed"] for b in bins], marker="o", color="#1f5fa8", label="model")
    most = max(b["rows"] for b in bins)
    axes.bar(
        [b["predicted"] for b in bins],
        [b["rows"] / most * 0.25 for b in bins],
        width=0.03,
        color="#1f5fa8",
        alpha=0.25,
        label=f"rows (tallest: {most:,})",
    )
    axes.set(xlabel="predicted probability", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)


def _history(axes: Any, history: list[float]) -> None:
    best = history.index(min(history))
    axes.plot(range(1, len(history) + 1), history, color="#1f5fa8")
    axes.axvline(best + 1, color="#b5402a", linewidth=1, linestyle="--", label=f"kept: round {best + 1}")
    axes.set(xlabel="round", ylabel="log loss on validation")
    axes.legend(frameon=False, fontsize=8)


def _importance(axes: Any, importance: dict[str, float]) -> None:
    top = list(importance.items())[:15][::-1]
    axes.barh([name for name, _ in top], [value for _, value in top], color="#1f5fa8")
    axes.set(xlabel="share of total gain")
    axes.tick_params(axis="y", labelsize=7)

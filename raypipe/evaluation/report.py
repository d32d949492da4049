"""The evaluation report: one self-contained HTML page, plots included."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raypipe.evaluation.gate import Verdict
from raypipe.evaluation.names import METRICS, title


def write_report(path: Path, model: str, result: dict[str, Any], verdict: Verdict) -> None:
    """Write the page to `path`; names and values are escaped."""
    environment = Environment(loader=PackageLoader("raypipe.evaluation"), autoescape=True, undefined=StrictUndefined)
    environment.filters["figure"] = lambda value: "" if value is None else f"{value:.4f}"
    environment.filters["title"] = title
    environment.filters["described"] = _described
    plots = {
        "Training": _plot(_history, result["run"]),
        "Features by gain": _plot(_importance, result["importance"]),
    }
    if "calibration" in result:
        plots = {"Calibration": _plot(_calibration, result["calibration"]), **plots}
    page = environment.get_template("report.html").render(
        model=model, result=result, verdict=verdict, metrics=METRICS[result["task"]], plots=plots
    )
    path.write_text(page, encoding="utf-8")


def _described(counts: dict[str, Any]) -> str:
    """What is told of the labels of some rows beside their number."""
    words: dict[str, Callable[[Any], str]] = {
        "positive_share": lambda share: f"{100 * share:.1f} % positive",
        "classes": lambda count: f"{count:,} classes",
        "mean": lambda mean: f"mean {mean:.6g}",
        "groups": lambda count: f"{count:,} groups",
    }
    return ", ".join(say(counts[name]) for name, say in words.items() if name in counts)


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


def _history(axes: Any, run: dict[str, Any]) -> None:
    history, kept = run["history"], run["rounds"]
    axes.plot(range(1, len(history) + 1), history, color="#1f5fa8")
    axes.axvline(kept, color="#b5402a", linewidth=1, linestyle="--", label=f"kept: round {kept}")
    axes.set(xlabel="round", ylabel="metric of training, on validation")
    axes.legend(frameon=False, fontsize=8)


def _importance(axes: Any, importance: dict[str, float]) -> None:
    top = list(importance.items())[:15][::-1]
    axes.barh([name for name, _ in top], [value for _, value in top], color="#1f5fa8")
    axes.set(xlabel="share of total gain")
    axes.tick_params(axis="y", labelsize=7)

"""The evaluation report: one self-contained HTML page, plots included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raypipe.evaluation import plots
from raypipe.evaluation.gate import Verdict
from raypipe.evaluation.names import METRICS, title


def write_report(path: Path, model: str, result: dict[str, Any], verdict: Verdict) -> None:
    """Write the page to `path`; names and values are escaped."""
    environment = Environment(loader=PackageLoader("raypipe.evaluation"), autoescape=True, undefined=StrictUndefined)
    environment.filters["figure"] = lambda value: "" if value is None else f"{value:.4f}"
    environment.filters["title"] = title
    environment.filters["described"] = _described
    shown = {
        f"Learning curve ({result['run']['metric']})": plots.learning_curve(result["run"]),
        "Features by gain": plots.importance(result["importance"], top=15),
    }
    if result["calibration"]:
        shown = {"Calibration": plots.calibration(result["calibration"]["bins"]), **shown}
    images = {name: plots.data_uri(figure) for name, figure in shown.items()}
    page = environment.get_template("report.html").render(
        model=model, result=result, verdict=verdict, metrics=METRICS[result["task"]], plots=images
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

"""The evaluation report: one self-contained HTML page, plots included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raypipe.evaluation import plots
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
            "calibration": plots.data_uri(plots.calibration(result["calibration"])),
            "learning_curve": plots.data_uri(plots.learning_curve(result["run"])),
            "importance": plots.data_uri(plots.importance(result["importance"], top=15)),
        },
    )
    path.write_text(page, encoding="utf-8")

"""The tuning report: one self-contained HTML page, plots included."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from raypipe.project.tuning_settings import Range
from raypipe.tuning.choose import loss
from raypipe.tuning.journal import Finished
from raypipe.tuning.study import Study

_COLOURS = {"completed": "#1f5fa8", "stopped": "#b9c6d6", "cut": "#d9a441"}
_CHOSEN, _UNTUNED = "#b5402a", "#222222"
_SHOWN = 0.8  # of the trials, from the best on, set the scale; worse ones are drawn at its end


def write_report(path: Path, model: str, study: Study, trials: Sequence[Finished], result: dict[str, Any]) -> None:
    """Write the page to `path`; names and values are escaped."""
    environment = Environment(loader=PackageLoader("raypipe.tuning"), autoescape=True, undefined=StrictUndefined)
    environment.filters["figure"] = figure
    measured = [trial for trial in trials if trial.value is not None]
    plots = {"Trials": _plot(partial(_history, measured, result))}
    if result["second"]:
        plots["Pareto front"] = _plot(partial(_front, measured, result))
    for name, searched in study.space.items():
        values = [study.values(trial).get(name) for trial in measured]
        plots[name] = _plot(partial(_scatter, measured, result, (name, searched, values)))
    page = environment.get_template("tuning.html").render(model=model, result=result, plots=plots)
    path.write_text(page, encoding="utf-8")


def figure(value: Any) -> str:
    """A number for people; nothing for None."""
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _plot(draw: Callable[[Any], None]) -> str:
    """A plot as a data URI."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(4.6, 3.2), layout="constrained")
    draw(canvas.subplots())
    image = io.BytesIO()
    canvas.savefig(image, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(image.getvalue()).decode()


def _scale(axes: Any, trials: Sequence[Finished], result: dict[str, Any]) -> list[float]:
    """The metrics, those past the scale at its end; sets the scale of the vertical axis."""
    losses = np.array([loss(trial, maximize=result["maximize"]) for trial in trials])
    told = [result["untuned"]["metric"] * (-1 if result["maximize"] else 1)] if result["untuned"] else []
    best, worst = losses.min(), max([float(np.quantile(losses, _SHOWN)), *told])
    margin = (worst - best) * 0.06 or abs(best) * 0.01 or 1.0
    worst += margin
    sign = -1 if result["maximize"] else 1
    axes.set_ylim(*sorted([sign * (best - margin), sign * (worst + margin / 2)]))
    axes.set_ylabel(result["metric"])
    return [float(value) for value in sign * np.minimum(losses, worst)]


def _dots(
    axes: Any, trials: Sequence[Finished], across: Sequence[Any], up: Sequence[float], result: dict[str, Any]
) -> None:
    """The trials as dots, coloured by how they ended; the chosen one and the settings as they are stand out."""
    for status, colour in _COLOURS.items():
        at = [i for i, trial in enumerate(trials) if trial.status == status]
        if at:
            axes.scatter([across[i] for i in at], [up[i] for i in at], s=18, color=colour, label=status)
    marked = {result["chosen"]["trial"]: (_CHOSEN, "chosen", 70), 0: (_UNTUNED, "untuned", 40)}
    for i, trial in enumerate(trials):
        if trial.number in marked:
            colour, label, size = marked[trial.number]
            axes.scatter(
                [across[i]], [up[i]], s=size, facecolors="none", edgecolors=colour, linewidths=1.6, label=label
            )


def _history(trials: Sequence[Finished], result: dict[str, Any], axes: Any) -> None:
    numbers = [trial.number for trial in trials]
    up = _scale(axes, trials, result)
    best = np.maximum.accumulate(up) if result["maximize"] else np.minimum.accumulate(up)
    axes.step(numbers, best, where="post", color="#999999", linewidth=1, label="best so far")
    _dots(axes, trials, numbers, up, result)
    axes.set_xlabel("trial")
    axes.legend(frameon=False, fontsize=7, loc="upper right" if not result["maximize"] else "lower right")


def _scatter(trials: Sequence[Finished], result: dict[str, Any], parameter: tuple[str, Any, Any], axes: Any) -> None:
    """A parameter (name, what was searched, its value in each trial) against the metric."""
    name, searched, values = parameter
    at = [i for i, value in enumerate(values) if value is not None]
    shown, across = [trials[i] for i in at], [values[i] for i in at]
    up = _scale(axes, shown, result)
    if isinstance(searched, Range):
        if searched.log and all(value > 0 for value in across):
            axes.set_xscale("log")
            ticks = np.geomspace(searched.low, searched.high, 4)
            axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
            axes.minorticks_off()
        _dots(axes, shown, across, up, result)
        for end in (searched.low, searched.high):
            axes.axvline(end, color="#dddddd", linewidth=1, zorder=0)
    else:
        _dots(axes, shown, [str(value) for value in across], up, result)
    axes.set_xlabel(name)


def _front(trials: Sequence[Finished], result: dict[str, Any], axes: Any) -> None:
    second = result["second"]
    up = _scale(axes, trials, result)
    front = result["pareto"]
    axes.step([p[second] for p in front], [p["metric"] for p in front], where="pre", color="#999999", linewidth=1)
    _dots(axes, trials, [trial.second for trial in trials], up, result)
    axes.set_xlabel({"latency": "latency of one row [µs]", "size": "size of the model [bytes]"}[second])
    axes.legend(frameon=False, fontsize=7)

"""The evaluation report: one HTML page that needs nothing beside itself. What it says is in report_words, what it draws
in report_plots and report_strips, how it reads in templates/report/."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from raypipe.data.digest import short
from raypipe.evaluation import report_plots, report_strips
from raypipe.evaluation import report_words as words
from raypipe.evaluation.names import METRICS, headlines, title
from raypipe.evaluation.report_facts import Reported, limits, lineage, missing_most

# Each section of the page: its template and its heading. One whose template comes out empty is left out.
SECTIONS = {
    "figures": "How good is it?",
    "weak": "Where is it weak?",
    "trust": "Can the probabilities be trusted?",
    "looks_at": "What does it look at?",
    "cheated": "Did it cheat?",
    "lasting": "How long will it last?",
    "learning": "How did it learn?",
    "data": "Data and lineage",
    "limits": "Limits",
}
# Every key of evaluation.json that a section may ask for: one that is absent is None there.
_KEYS = (
    "period", "confidence", "blocks", "champion", "latency", "model", "baselines", "intervals", "comparisons",
    "calibration", "threshold", "curves", "slices", "worst_slices", "worst_rows", "fairness", "importance",
    "contributions", "usefulness", "behaviour", "backtest", "leakage", "null_share", "newest", "age_of_data_s",
)  # fmt: skip


def write_report(path: Path, reported: Reported) -> None:
    """Write the page to `path`: the same bytes for equal input; names and values are escaped."""
    environment, shown = _environment(), _shown(reported)
    made = {name: environment.get_template(f"{name}.html").render(shown) for name in SECTIONS}
    bodies = {name: Markup(body) for name, body in made.items() if body.strip()}  # noqa: S704 - the templates escape
    sections = [(name, SECTIONS[name], body) for name, body in bodies.items()]
    page = environment.get_template("page.html").render(shown, sections=sections)
    path.write_text(page, encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("raypipe.evaluation", "templates/report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named = (
        words.number, words.share, words.confidence, words.interval, words.described, words.day, words.duration,
        words.size, words.where, words.verdict_title, words.verdict_means, words.movers,
        words.example, words.at_shares, title, short, breakable,
    )  # fmt: skip
    environment.filters |= {function.__name__: function for function in named}
    environment.globals |= {
        "better": words.better,
        "deciders": words.deciders,
        "measured": words.measured,
        "in_unit": words.in_unit,
        "meanings": words.MEANINGS,
        "probes": words.PROBES,
    }
    return environment


def breakable(text: object) -> Markup:
    """A name that may be broken after its dots and underscores, where a letter follows."""
    return Markup(re.sub(r"(?<=[._])(?=[^\W\d])", "<wbr>", escape(text)))  # noqa: S704 - escaped before


def _shown(reported: Reported) -> dict[str, Any]:
    """What the templates see."""
    result: dict[str, Any] = dict.fromkeys(_KEYS) | dict(reported.result) | dict(reported.evidence)
    task = result["task"]
    metric, model = METRICS[task][0], report_strips.model_figures(result)
    return {
        **vars(reported),
        "result": result,
        "task": task,
        "metric": metric,
        "metrics": METRICS[task],
        "figures": {
            name: figure for name in METRICS[task] if (figure := report_strips.of_metric(model, name)) is not None
        },
        "headlines": list(headlines(task)),
        "plots": report_plots.drawings(result, reported.run),
        "compared": {name: report_strips.compared(result, name) for name in headlines(task)},
        "slices": report_strips.slices(result, metric),
        "worst_slices": report_strips.worst_slices(result["worst_slices"] or {}),
        "importance": report_strips.bars("share of total gain", result["importance"] or {}, shares=True),
        "contributions": report_strips.bars(
            "mean size of the contribution", (result["contributions"] or {}).get("mean_absolute") or {}
        ),
        "by_view": report_strips.bars(
            "mean size of the contribution", (result["contributions"] or {}).get("by_view") or {}
        ),
        "usefulness": report_strips.usefulness(result["usefulness"] or []),
        "by_age": words.by_age(result["backtest"] or {}),
        "nulls": missing_most(reported),
        "lineage": lineage(reported),
        "limits": limits(reported),
        "useless": [row["feature"] for row in result["usefulness"] or [] if row.get("useless")],
    }

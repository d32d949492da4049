"""The model card: a page of Markdown for whoever is asked to use or to approve the model.

Sections after Mitchell et al.: Model Cards for Model Reporting, FAT* 2019.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raypipe.evaluation import report_words as words
from raypipe.evaluation.names import METRICS, title
from raypipe.evaluation.report_facts import Reported, limits, lineage
from raypipe.evaluation.report_strips import model_figures, of_metric

_SLICES, _WORST = 8, 5  # values of a column, groups of rows; the report has more


def write_card(path: Path, reported: Reported) -> None:
    """Write the card to `path`: the same bytes for equal input; names and values are escaped."""
    card = _environment().get_template("model_card.md").render(_shown(reported))
    path.write_text(card, encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("raypipe.evaluation"),
        autoescape=False,  # noqa: S701 - Markdown, which the filter `markdown` escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    named = (
        words.number, words.share, words.confidence, words.interval, words.day, words.described, words.where, title,
        markdown,
    )  # fmt: skip
    environment.filters |= {function.__name__: function for function in named}
    environment.globals |= {"better": words.better, "of_metric": of_metric, "meanings": words.MEANINGS}
    return environment


def markdown(text: object) -> str:
    """A text as plain words of one line: nothing in it is markup or ends a table's cell."""
    return re.sub(r"([\\`*\[\]<>|#~&])", r"\\\1", " ".join(str(text).split()))


def _shown(reported: Reported) -> dict[str, Any]:
    result, verdict = reported.result, reported.verdict
    metrics = METRICS[result["task"]]
    model = model_figures(result)
    return {
        **vars(reported),
        "metrics": [name for name in metrics if of_metric(model, name) is not None],
        "metric": metrics[0],
        "figures": {name: of_metric(model, name) for name in metrics},
        "period": result.get("period"),
        "level": result.get("confidence"),
        "comparisons": result.get("comparisons") or {},
        "baselines": result.get("baselines") or {},
        "slices": {column: (found or [])[:_SLICES] for column, found in (result.get("slices") or {}).items()},
        "worst": ((result.get("worst_slices") or {}).get("found") or [])[:_WORST],
        "fairness": result.get("fairness") or {},
        "backtest": result.get("backtest") or {},
        "limits": limits(reported),
        "lineage": lineage(reported),
        "decided": [(finding.rule, finding.says) for finding in words.deciders(verdict)],
        "verdict_title": words.verdict_title(verdict),
        "verdict_means": words.verdict_means(verdict),
    }

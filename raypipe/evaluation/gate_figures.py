"""From what was measured (evaluation.json, evidence.json) to what the rules of a gate name. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raypipe.evaluation import behaviour, fairness
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.gate import Case, Evidence
from raypipe.evaluation.names import CHAMPION

Document = Mapping[str, Any]
Named = Iterator[tuple[str, list[Case]]]


def evidence_of(result: Document) -> Evidence:
    """All figures of a model's evaluation, those of its data among them."""
    cases = dict(_metrics(result))
    for section in (_slices, _calibration, _threshold, _fairness, _single):
        cases |= dict(section(result))
    return Evidence(
        cases | dict(_data(result["data"]) if result["data"] else {}), champion=result["champion"] is not None
    )


def data_evidence_of(data: Document) -> Evidence:
    """The figures that are known before a model is trained."""
    return Evidence(dict(_data(data)))


def _metrics(result: Document) -> Named:
    rows = result["model"]["rows"]
    for metric, interval in result["intervals"]["model"].items():
        against = {
            model: one_sided(found[metric], rows) for model, found in result["comparisons"].items() if metric in found
        }
        yield metric, [Case(_figure(interval, rows), against=against)]


def _slices(result: Document) -> Named:
    for column, slices in result["slices"].items():
        measured = [found for found in slices if "intervals" in found]
        for metric in result["intervals"]["model"]:
            cases = [_slice(found, metric) for found in measured if metric in found["intervals"]]
            yield f"slice.{column}.{metric}", cases


def _slice(found: Document, metric: str) -> Case:
    compared = found.get(CHAMPION) or {}
    against = {CHAMPION: _figure(compared[metric], found["rows"])} if metric in compared else {}
    return Case(_figure(found["intervals"][metric], found["rows"]), str(found["value"]), against)


def _calibration(result: Document) -> Named:
    found = result["calibration"] or {}
    for name in ("ece", "slope", "intercept"):
        if name in found:
            yield f"calibration.{name}", [Case(_figure(found[name], result["model"]["rows"]))]


def _threshold(result: Document) -> Named:
    found = result["threshold"] or {}
    for name in ("precision", "recall", "specificity", "positive_rate"):
        if name in found:
            yield f"threshold.{name}", [Case(_figure(found[name], result["model"]["rows"]))]


def _fairness(result: Document) -> Named:
    for name, figure in fairness.figures(result["fairness"]).items():
        yield name, [Case(figure)]


def _single(result: Document) -> Named:
    """Counts, times and ages."""
    yield "behaviour.failed", [Case(behaviour.figures(result["behaviour"])["behaviour.failed"])]
    yield "features.useless", [Case(Figure.exact(sum(feature["useless"] for feature in result["usefulness"])))]
    if result["worst_slices"] is not None:  # a ranking has none
        yield "worst_slices.found", [Case(Figure.exact(len(result["worst_slices"]["found"])))]
    for name, value in (result["latency"] or {}).items():
        yield f"latency.{name}", [Case(Figure.exact(value))]
    if result["backtest"] is not None:
        days = result["backtest"]["staleness_days"]
        yield "backtest.staleness", [Case(Figure.exact(math.inf if days is None else days * 86_400.0))]


def _data(data: Document) -> Named:
    """A probe that could not look has no figure."""
    leakage, nulls = data["leakage"], data["null_share"]
    yield "leakage", [Case(Figure.exact(len(leakage["found"])))]
    for probe, told in leakage["probes"].items():
        if not told["because"]:
            yield f"leakage.{probe}", [Case(Figure.exact(sum(one["probe"] == probe for one in leakage["found"])))]
    yield "features.null_share", [Case(Figure.exact(share), name) for name, share in nulls.items()]
    for name, share in nulls.items():
        yield f"features.null_share.{name}", [Case(Figure.exact(share))]
    yield "age_of_data", [Case(Figure.exact(age), name) for name, age in data["age_of_data_s"].items()]
    for name, age in data["age_of_data_s"].items():
        yield f"age_of_data.{name}", [Case(Figure.exact(age))]


def one_sided(found: Document, rows: int) -> Figure:
    """A difference to another model, with the ends of which each is sure with the settings' confidence: a rule asks for
    one side."""
    least, most = found["one_sided"]
    return Figure(found["difference"][0], least, most, rows)


def _figure(interval: Sequence[float | None], rows: int) -> Figure:
    value, low, high = interval
    return Figure(value, low, high, rows)

"""Evaluations as they come out, without a model: every key of evaluation.json, for each task."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xgboost as xgb

from raypipe.evaluation.compare import Difference
from raypipe.evaluation.gate import Case, Evidence, Finding, Verdict, judge
from raypipe.evaluation.gate_figures import one_sided
from raypipe.evaluation.names import BASELINES, CHAMPION, LOWER_IS_BETTER, METRICS
from raypipe.evaluation.report_facts import Reported
from raypipe.evaluation.rules import Rule
from raypipe.evaluation.scoring import score_test_part
from raypipe.evaluation.tested import Tested
from raypipe.features.training_set import build_training_set
from raypipe.project.about_settings import About

CENTRES = {
    "roc_auc": 0.738, "log_loss": 0.46, "average_precision": 0.485, "brier": 0.147, "calibration_error": 0.0098,
    "accuracy": 0.71, "rmse": 12.4, "mae": 8.1, "r2": 0.41, "ndcg_at_10": 0.62, "ndcg": 0.71,
}  # fmt: skip
HIGHER = {"roc_auc", "average_precision", "accuracy", "r2", "ndcg_at_10", "ndcg"}
COUNTS = {
    "binary": {"positive_share": 0.2214}, "multiclass": {}, "regression": {"mean": 31.4}, "ranking": {"groups": 912},
}  # fmt: skip
FEATURES = [
    *("flight_minute_of_day", "at_origin_3h_delay", "by_carrier_at_origin_24h_delay", "weather_pressure"),
    *("weather_dewp", "flight_dest", "on_route_24h_delay", "plane_seats", "weather_wind_dir", "destination_lat"),
    "a_feature_view_with_a_rather_long_name_that_somebody_chose_30d_share_of_late_departures_among_all",
]


@pytest.fixture(scope="session")
def no_worse() -> Callable[..., str]:
    """What the gate says of a rule that the model is no worse than the champion by more than `margin`."""

    def outcome(metric: str, difference: Difference, margin: float = 0.0) -> str:
        comparison, bound = ("<=", margin) if metric in LOWER_IS_BETTER else (">=", -margin)
        figure, rows = difference.figure, difference.figure.rows
        case = Case(figure, against={CHAMPION: one_sided(difference.to_json(), rows)})
        rule = Rule(f"{metric} {comparison} champion", metric, comparison, bound, CHAMPION)
        return judge([rule], Evidence({metric: [case]}, champion=True)).outcome

    return outcome


class Sample:
    """Draws one evaluation; the same for the same task."""

    def __init__(self, task: str) -> None:
        self.task, self.dice, self.metric = task, random.Random(task), METRICS[task][0]
        self.rows = 82_617

    def around(self, value: float, wide: float) -> list[float]:
        value += self.dice.gauss(0, wide / 4)
        return [value, value - wide * self.dice.uniform(0.8, 1.2), value + wide * self.dice.uniform(0.8, 1.2)]

    def metrics(self, worse: float = 0.0, wide: float = 0.01) -> dict[str, list[float]]:
        return {
            name: self.around(CENTRES[name] * (1 - worse if name in HIGHER else 1 + worse), wide * CENTRES[name])
            for name in METRICS[self.task]
        }

    def result(self) -> dict[str, Any]:
        simple, linear = BASELINES[self.task][:2]
        intervals = {
            name: self.metrics(w) for name, w in (("model", 0), ("champion", 0.004), (simple, 0.2), (linear, 0.03))
        }
        result: dict[str, Any] = {
            "task": self.task,
            "period": ["2013-10-01 00:05:00.000000+00:00", "2014-01-01 02:59:00.000000+00:00"],
            "run": {"digest": "5236a337df4f" * 5 + "0000", "rounds": 170, "workers": 2},
            "training_set": {"digest": "96e0ce5aec55" * 5 + "0000"},
            "model": {"rows": self.rows, **COUNTS[self.task], **_values(intervals["model"])},
            "baselines": {name: {"rows": self.rows, **_values(intervals[name])} for name in (simple, linear)},
            "champion": {"version": "3", "digest": "f" * 64, "why_not": None},
            "latency": {"p50_ms": 0.412, "p99_ms": 1.3},
            "confidence": 0.95,
            "blocks": {"kind": "day", "count": 92},
            "intervals": intervals,
            "comparisons": {name: self.comparison(intervals, name) for name in intervals if name != "model"},
            "slices": {"carrier": self.slices(16), "origin": self.slices(3)},
            "worst_slices": self.worst_slices() if self.task != "ranking" else None,
            "worst_rows": {"file": "worst_rows.parquet", "rows": [self.worst_row(n) for n in range(20)]},
            "fairness": self.fairness(),
            "importance": {name: 2.0**-n for n, name in enumerate(FEATURES, 1)},
            "contributions": {
                "rows": 1000,
                "mean_absolute": {f: self.dice.random() / n for n, f in _numbered()},
                "by_view": {"at_origin": 0.61, "weather": 0.32, "flight": 0.28},
            },
            "usefulness": [self.use(n, name) for n, name in _numbered()],
            "behaviour": [self.behaviour("more rain, more delay", failed) for failed in (0, 14, None)],
            "backtest": self.backtest(),
        }
        return result | (self.of_probabilities() if self.task == "binary" else _NO_PROBABILITIES)

    def comparison(self, intervals: dict[str, Any], other: str) -> dict[str, Any]:
        pairs = zip(intervals["model"].items(), intervals[other].values(), strict=True)
        return {
            name: {"difference": self.around(a[0] - b[0], 0.004 * CENTRES[name]), "p_value": 0.012}
            for (name, a), b in pairs
        }

    def slices(self, count: int) -> list[dict[str, Any]]:
        made = []
        for n in range(count):
            rows = 15_000 // (n + 1) ** 2
            slice_: dict[str, Any] = {"value": None if n == 5 else f"{chr(65 + n)}{chr(90 - n)}", "rows": rows}
            if rows >= 200:
                found = self.metrics(self.dice.gauss(0, 0.03), 0.6 / math.sqrt(rows))
                slice_ |= {**COUNTS[self.task], **_values(found), "intervals": found, "champion": self.apart()}
            made.append(slice_)
        return made

    def apart(self) -> dict[str, list[float]]:
        return {name: self.around(0, 0.01 * CENTRES[name]) for name in METRICS[self.task]}

    def worst_slices(self) -> dict[str, Any]:
        conditions = [
            [{"feature": "flight_carrier", "is": "FL"}, {"feature": "weather_precip", "is": "above 0.02"}],
            [{"feature": "plane_seats", "is": None}],
            [
                {"feature": FEATURES[-1], "is": "0.25 to 0.5"},
                {"feature": "flight_dest", "is": "a category <&> of people"},
            ],
        ]
        found = [
            {"where": w, "rows": 900 - 100 * n, "loss": self.around(0.06 - n / 100, 0.008), "rest": 0.002,
             "p_value": 1e-6 * 10**n, "p_adjusted": 3e-4 * 10**n}
            for n, w in enumerate(conditions)
        ]  # fmt: skip
        return {
            "metric": "avoidable_log_loss", "rows": self.rows, "least_rows": 200, "least_effect": 0.009, "tested": 4312,
            "correction": "Benjamini-Yekutieli", "found": found,
        }  # fmt: skip

    def worst_row(self, n: int) -> dict[str, Any]:
        return {
            "row": 1000 + n, "time": "2013-11-27 14:05:00.000000+00:00", "label": 1.0, "score": 0.03 + n / 500,
            "loss": 3.5 - n / 10, "features": dict.fromkeys(FEATURES, None if n == 3 else 12.5),
            "contributions": {name: (-1) ** i * 0.9 / i for i, name in _numbered()},
        }  # fmt: skip

    def fairness(self) -> dict[str, Any]:
        metrics = ["selection_rate", "false_negative_rate"] if self.task == "binary" else ["accuracy"]
        groups = [
            {"value": v, "rows": r, **{m: self.around(0.6, 0.03) for m in metrics}}
            for v, r in (("young", 31_000), ("old", 9_100))
        ]
        groups.append({"value": None, "rows": 12})
        apart = {m: self.around(0.04, 0.05) for m in metrics}
        return {
            "age": {"groups": groups, "differences": apart, "ratios": {m: self.around(0.93, 0.05) for m in metrics}}
        }

    def use(self, n: int, name: str) -> dict[str, Any]:
        useless = n in {6, 8, 9}
        drop = self.around(0 if useless else 0.02 / n, 0.001)
        return {
            "feature": name, "metric": self.metric, "rows": 10_000, "drop": drop, "bytes": 660_000 * n,
            "null_share": 0.013 * (n - 1), "useless": useless,
        }  # fmt: skip

    def behaviour(self, name: str, failed: int | None) -> dict[str, Any]:
        shown = {
            "row": 4711, "time": "2013-10-02 10:00:00+00:00", "score": 0.21, "score_changed": 0.19,
            "values": {"weather_precip": 0.01}, "changed": {"weather_precip": 0.4},
        }  # fmt: skip
        return {
            "name": name, "kind": "Direction", "matching": 2000 if failed is not None else 0,
            "rows": 2000 if failed is not None else 0, "failed": failed or 0, "max_failures": 0.001,
            "holds": None if failed is None else failed == 0, "example": shown if failed else None,
        }  # fmt: skip

    def backtest(self) -> dict[str, Any]:
        centre = CENTRES[self.metric]
        loss = -0.01 if self.metric in HIGHER else 0.01

        def aged(day: int, rows: int) -> dict[str, Any]:
            return {"age_days": day, "rows": rows, "metric": self.around(centre * (1 + loss * day / 14), centre * 0.01)}

        ages = range(0, 70, 7)
        return {
            "origins": [
                {"origin": f"2013-0{m}-01T00:00:00+00:00", "rows": 90_000, "ages": [aged(d, 6500) for d in ages]}
                for m in (5, 6, 7)
            ],
            "by_age": [aged(d, 19_500) | {"worse": self.around(d / 1400, 0.008)} for d in ages],
            "metric": self.metric,
            "tolerance": 0.02,
            "staleness_days": 35,
            "because": "a model of 35 days may have lost 1.8% [0.9%, 2.6%] of its quality, more than 2.0%",
        }

    def of_probabilities(self) -> dict[str, Any]:
        steps = [n / 20 for n in range(21)]
        bins = [(n + 0.5) / 10 for n in range(10)]
        recall = [(s, 0.9 - 0.68 * s**0.6) for s in steps]
        captured = [(s, s**0.55) for s in steps[1:]]
        return {
            "calibration": {
                "bins": [
                    {"rows": 30_000 // 2**n, "weight": 30_000.0 / 2**n, "predicted": p, "observed": p * 0.96,
                     "low": p * 0.96 - 0.004 * 1.4**n, "high": min(p * 0.96 + 0.004 * 1.4**n, 1)}
                    for n, p in enumerate(bins)
                ],
                "slope": [1.04, 0.99, 1.09], "intercept": [-0.03, -0.06, 0.01], "ece": [0.0098, 0.007, 0.013],
            },
            "threshold": {
                "value": 0.31, "because": "least cost: a miss costs 5 false alarms",
                "confusion": {"tp": 10_512, "fp": 9_120, "fn": 7_778, "tn": 55_207}, "precision": [0.535, 0.52, 0.55],
                "recall": [0.575, 0.56, 0.59], "specificity": [0.858, 0.85, 0.866], "positive_rate": 0.2376, "cost": 48_010,
            },
            "curves": {
                "roc": [{"fpr": s, "tpr": s**0.4, "low": max(s**0.4 - 0.02, 0), "high": min(s**0.4 + 0.02, 1)} for s in steps],
                "precision_recall": [{"recall": r, "precision": p, "low": p - 0.02, "high": p + 0.02} for r, p in recall],
                "gain": [{"share": s, "captured": c, "lift": c / s} for s, c in captured],
                "scores": [
                    {"from": s, "to": s + 0.05, "negative": int(9000 * math.exp(-9 * s)), "positive": int(900 * math.exp(-3 * s))}
                    for s in steps[:-1]
                ],
            },
        }  # fmt: skip

    def run(self) -> dict[str, Any]:
        history = [0.53 - 0.07 * (1 - math.exp(-n / 40)) + 0.00003 * max(n - 169, 0) for n in range(190)]
        return {
            "digest": "5236a337df4f" * 5 + "0000", "rounds": 170, "workers": 2, "metric": "logloss",
            "history": history, "curve": [[n, 0.55 - 0.09 * (1 - math.exp(-n / 60))] for n in (*range(1, 190, 10), 190)],
            "best_round": 169, "started_at": "2026-11-24T19:24:56.648719+00:00", "wall_s": 44.1,
            "code": {"commit": "976dad2be82e4c294d70ff8684c8822b3392582a", "dirty": True, "changes": [" M features.py"]},
            "params": {"eta": 0.05, "max_depth": 6, "objective": "binary:logistic", "subsample": 0.8},
            "environment": {"python": "3.11.9", "raypipe": "0.3.0", "xgboost": "3.2.0", "polars": "2.1.0"},
        }  # fmt: skip

    def training_set(self) -> dict[str, Any]:
        parts = {part: {"rows": rows, **COUNTS[self.task]} for part, rows in (("test", 82_617), ("train", 216_090))}
        return {
            "digest": "96e0ce5aec55" * 5 + "0000", "parts": parts | {"validation": {"rows": 25_116}},
            "left_out": {"embargo": 3552, "label unknown": 9401, "outside the split": 0},
            "split": "split by time, validation from 2013-09-01, test from 2013-10-01",
            "features": dict.fromkeys(FEATURES, "Float64"), "identity": {"as_of": None},
            "sources": {
                "flights": {"digest": "0c6f68735dc5", "rows": 336_776, "violations": {}},
                "weather": {"digest": "15ec755aa1c6", "rows": 26_114, "violations": {"wind_speed|max": 1}},
            },
        }  # fmt: skip

    def evidence(self) -> dict[str, Any]:
        sign = {"probe": "single_feature", "feature": "weather_dewp", "figure": 0.97, "bound": 0.95,
                "says": "alone it orders the labels almost perfectly"}  # fmt: skip
        return {
            "leakage": {
                "found": [sign],
                "probes": {
                    "single_feature": {"best": 0.97},
                    "overlap": {"because": None},
                    "random_split": {"because": "there is no time to split by"},
                },
            },
            "null_share": {name: 0.013 * (n - 1) for n, name in _numbered()},
            "age_of_data_s": {"flights": 7.5 * 86400},
            "newest": {"flights": "2013-12-31T23:00:00+00:00", "weather": None},
            "rows": {},
        }


_NO_PROBABILITIES = {"calibration": None, "threshold": None, "curves": None}


def _numbered() -> list[tuple[int, str]]:
    return list(enumerate(FEATURES, 1))


def _values(figures: dict[str, list[float]]) -> dict[str, float]:
    return {name: figure[0] for name, figure in figures.items()}


def sample_verdict(task: str, outcome: str = "pass") -> Verdict:
    metric, linear = METRICS[task][0], BASELINES[task][1]
    centre = CENTRES[metric]
    sign = ">" if metric in HIGHER else "<"
    bound = centre * (0.97 if sign == ">" else 1.03)
    more = 12_400 if outcome == "inconclusive" else None
    rules = [
        Finding(f"{metric} {sign} {linear}.{metric}", "pass", centre, bound, centre * 0.98, centre * 1.02, None, "far"),
        Finding(f"{metric} {sign} {centre}", outcome, centre, centre, centre * 0.98, centre * 1.02, more, "near"),
    ]
    ages = Finding("age_of_data < 10d", "pass", 648_000.0, 864_000.0, says="young")
    none = Finding(f"{metric} {sign} champion.{metric}", "pass", None, None, says="there is no champion")
    return Verdict(outcome, [*rules, ages, none])


ABOUT = About(
    owner="Arrivals team",
    contact="arrivals@example.org",
    intended_use="Ground staff decide two hours ahead where to send people.",
    limits=["Not for passengers' compensation.", "Not for airports outside of New York."],
)


def sample_reported(task: str, outcome: str = "pass", **changes: Any) -> Reported:
    """All there is to report of a model of the task; `changes` by the names of Reported."""
    sample = Sample(task)
    made = {
        "model": "flights-late",
        "about": ABOUT,
        "predicts": f"Predicts late ({task}) for rows of flights, from 11 features of at_origin, weather.",
        "result": sample.result(),
        "verdict": sample_verdict(task, outcome),
        "run": sample.run(),
        "training_set": sample.training_set(),
        "evidence": sample.evidence(),
    }
    return Reported(**made | changes)


@pytest.fixture(scope="session")
def reported() -> Callable[..., Reported]:
    return sample_reported


# ---- a model of any task ------------------------------------------------------------------------

OBJECTIVES: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary:logistic"},
    "multiclass": {"objective": "multi:softprob", "num_class": 3},
    "regression": {"objective": "reg:squarederror"},
    "ranking": {"objective": "rank:ndcg"},
}


def booster_of(training_set, task: str, rounds: int = 8) -> xgb.Booster:
    """Trees over the training part; of a ranking its rows in order of their groups."""
    transforms, frame = training_set.transforms(), pl.concat(map(pl.read_parquet, training_set.files("train")))
    frame = frame.sort("group") if task == "ranking" else frame
    rows = xgb.QuantileDMatrix(
        transforms.matrix(frame), transforms.labels(frame), feature_names=transforms.names,
        feature_types=transforms.feature_types, enable_categorical=True,
        base_margin=frame["base_margin"].to_numpy() if "base_margin" in frame.columns else None,
        qid=frame["group"].rle_id().to_numpy() if task == "ranking" else None,
    )  # fmt: skip
    return xgb.train(OBJECTIVES[task] | {"max_depth": 3, "nthread": 1}, rows, rounds)


@pytest.fixture(scope="session")
def tested_of(shop_of, prepared) -> Callable[..., Tested]:
    """The small project's test rows with what a booster of the task says of them."""

    def test(task: str, folder: Path, **changes: Any) -> Tested:
        made = prepared(shop_of(task, folder, **changes))
        training_set = build_training_set(made.project, made.sources, "local")
        return score_test_part(made.project, training_set, booster_of(training_set, task), None)

    return test


@pytest.fixture(scope="session", params=list(OBJECTIVES))
def tested(request, tested_of, tmp_path_factory) -> Tested:
    """Each task in turn."""
    return tested_of(request.param, tmp_path_factory.mktemp("task") / "shop")

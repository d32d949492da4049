"""The ML Test Score of a release: 28 tests in four sections, each of which its own artifacts show, or do not. Pure.

Breck, Cai, Nielsen, Salib, Sculley: "The ML Test Score: A Rubric for ML Production Readiness and Technical Debt
Reduction", IEEE Big Data 2017. A test that runs by itself and whose result is recorded counts 1, one that somebody ran
by hand and that is recorded 1/2; a section is the sum of its seven tests, the score the least of the four sections.
Nothing counts because raypipe could do it: `shown_by` names the artifact of this release that must show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raypipe.evaluation import ml_test_evidence as judged
from raypipe.evaluation.ml_test_evidence import Evidence, Judge, nothing

Row = tuple[str, str, Judge]  # the test, the artifact that would show it, and what judges that

_SECTIONS: dict[str, tuple[Row, ...]] = {
    "data": (
        (
            "Expectations of the data are in a schema",
            "lineage.json: rules of every source's contract, and the rows that broke each",
            judged.schema,
        ),
        ("Every feature helps", "metrics.json: usefulness of every feature, none useless", judged.beneficial),
        (
            "No feature costs too much",
            "metrics.json: cost of every feature beside its usefulness; for the other half, a rule that bounds it",
            judged.cost,
        ),
        (
            "Features keep to the rules for features",
            "evidence about the data: every leakage probe ran and found nothing",
            judged.requirements,
        ),
        (
            "Personal data is controlled",
            "lineage.json: which columns are personal, and that no feature reads them",
            nothing,
        ),
        (
            "A new feature gets to production quickly",
            "ledger: the time from a feature's first commit to the promotion of a version with it",
            nothing,
        ),
        ("Code of features is tested", "a record of the tests of features.py at the release's commit", nothing),
    ),
    "model": (
        (
            "Specifications are reviewed and checked in",
            "lineage.json: a commit and no changes beside it; for the other half, a record of its review",
            judged.checked_in,
        ),
        (
            "Offline metrics go with online ones",
            "monitoring: the offline metric of several versions beside what they did online",
            nothing,
        ),
        (
            "Hyperparameters are tuned",
            "tuning.json of the study that lineage.json names: nothing chosen on an edge, rounds to spare",
            judged.tuned,
        ),
        ("The effect of age is known", "metrics.json: backtest of at least two origins and ages", judged.staleness),
        (
            "A simpler model is not better",
            "metrics.json: comparisons with every baseline, whose interval leaves out that it is as good",
            judged.simpler,
        ),
        (
            "Quality is good enough in every slice",
            "metrics.json: slices with intervals; for the other half, a rule over them, or a search that found none",
            judged.slices,
        ),
        (
            "The model is fair to groups",
            "metrics.json: fairness with intervals; for the other half, a rule of the gate over it that passed",
            judged.inclusion,
        ),
    ),
    "infrastructure": (
        (
            "Training can be reproduced",
            "the record of `raypipe reproduce` of this version, equal; for the other half, a schedule that runs it",
            judged.reproduced,
        ),
        ("Specifications are unit-tested", "a record of unit tests of objective, metric and settings", nothing),
        ("The pipeline is tested as a whole", "a record of an integration test at the release's commit", nothing),
        (
            "Quality is checked before serving",
            "metrics.json: a verdict of pass, every rule with its figures",
            judged.validated,
        ),
        (
            "Single predictions can be taken apart",
            "metrics.json: rows with their features and what each contributed",
            judged.debuggable,
        ),
        ("A canary comes before serving", "ledger: a canary of this version and its outcome", nothing),
        (
            "A model can be rolled back",
            "ledger: a rollback from or to this version; for the other half, one that started by itself",
            judged.rollback,
        ),
    ),
    "monitoring": (
        ("Changes of dependencies are told", "monitoring: a notice of a changed dependency", nothing),
        ("Invariants of data hold when serving", "monitoring: rules checked on requests", nothing),
        ("Training and serving do not differ", "monitoring: features of requests recomputed offline", nothing),
        ("Models are not too old", "monitoring: the age of the serving model and a bound", nothing),
        ("Numbers stay finite", "monitoring: counts of NaN and infinite predictions", nothing),
        ("Speed has not got worse", "monitoring: latency and training time from version to version", nothing),
        ("Quality has not got worse", "monitoring: metrics on labels that came in", nothing),
    ),
}

# Upper bounds of the paper's table of scores.
_MEANINGS = (
    (0.0, "a research project rather than a production system"),
    (1.0, "not untested, but serious holes are to be expected"),
    (2.0, "a first pass at production: more is needed"),
    (3.0, "reasonably tested: more of it could run by itself"),
    (5.0, "strongly tested and monitored"),
    (7.0, "exceptionally tested and monitored"),
)


def ml_test_score(evidence: Evidence) -> dict[str, Any]:
    """`score` (0 to 7), `meaning`, and `sections` by name: `score` and `items`, each with `number`, `test`, `points`,
    `evidence` (what was found, where) and `shown_by` (what would show it)."""
    sections = {name: [_item(at, row, evidence) for at, row in enumerate(rows, 1)] for name, rows in _SECTIONS.items()}
    sums = {name: sum(item["points"] for item in items) for name, items in sections.items()}
    least = float(lowest(sums))
    return {
        "score": least,
        "meaning": meaning(least),
        "sections": {name: {"score": sums[name], "items": items} for name, items in sections.items()},
    }


def _item(number: int, row: Row, evidence: Evidence) -> dict[str, Any]:
    test, shown_by, judge = row
    shown = judge(evidence)
    return {"number": number, "test": test, "points": shown.points, "evidence": shown.by, "shown_by": shown_by}


def lowest(sections: Mapping[str, float]) -> float:
    """The score: no section makes up for another."""
    return min(sections.values())


def meaning(score: float) -> str:
    """What the paper says of such a score, in short."""
    return next(words for bound, words in _MEANINGS if score <= bound)

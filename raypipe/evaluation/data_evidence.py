"""What can be said against the data before money is spent on training.

`<storage>/evidence/<digest>/evidence.json`: rows by part, the share of nulls of each feature, the newest known row of
each source, and what the leakage probes measured and found. The age of the data is no part of it:
`DataEvidence.document` counts it from the newest row of each source to the moment that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl

import raypipe
from raypipe.data.digest import digest_of
from raypipe.data.publish import Identified, publish
from raypipe.data.split import PARTS
from raypipe.definitions.source import KNOWN_TIME
from raypipe.evaluation.leakage import (
    known_time,
    overlap,
    random_split,
    shifted_features,
    shuffled_target,
    single_feature,
)
from raypipe.evaluation.leakage.finding import Probed
from raypipe.evaluation.leakage.sample import Sample, scan
from raypipe.features.partitions import Sources
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project

EVIDENCE = "evidence.json"

PROBES: dict[str, Callable[[Sample], Probed]] = {
    module.NAME: module.probe
    for module in (single_feature, shuffled_target, shifted_features, overlap, known_time, random_split)
}


@dataclass(frozen=True)
class DataEvidence(Identified):
    """The evidence, at a moment."""

    document: dict[str, Any]


def examine(project: Project, sources: Sources, training_set: TrainingSet, now: datetime) -> DataEvidence:
    """Look at the training set and at the `sources` that it was built from, or find what was found.

    Runs in one process, without Ray; the rows that probes look at are bounded by `evaluation.leakage.rows`.
    """
    settings = project.settings.evaluation.leakage.model_dump(mode="json")
    named = {
        "raypipe": raypipe.__version__,
        "training_set": training_set.digest,
        "leakage": settings,
        "seed": project.settings.training.seed,
    }
    folder = project.storage / "evidence" / digest_of(named)
    output = publish(folder, lambda attempt: _examine(project, sources, training_set, attempt))
    document: dict[str, Any] = orjson.loads(output.path(EVIDENCE).read_bytes())
    return DataEvidence(output, document | {"age_of_data_s": _ages(document, now)})


def _ages(document: Mapping[str, Any], now: datetime) -> dict[str, float]:
    """Seconds from each source's newest known row to `now`."""
    newest = {name: datetime.fromisoformat(moment) for name, moment in document["newest"].items() if moment}
    return {name: (now - moment).total_seconds() for name, moment in newest.items()}


def _examine(project: Project, sources: Sources, training_set: TrainingSet, attempt: Path) -> dict[str, Any]:
    sample = Sample.of(project, sources, training_set)
    probed = {name: probe(sample) for name, probe in PROBES.items()}
    leakage = {
        "found": [asdict(found) for one in probed.values() for found in one.found],
        "probes": {name: {**one.figures, "because": one.because} for name, one in probed.items()},
    }
    document = {
        "training_set": training_set.digest,
        "rows": {part: training_set.rows(part) for part in PARTS},
        "null_share": _null_share(training_set),
        "newest": _newest(sample),
        "leakage": leakage,
    }
    (attempt / EVIDENCE).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return {"training_set": training_set.digest, "findings": len(leakage["found"])}


def _null_share(training_set: TrainingSet) -> dict[str, float]:
    """Of all labelled rows of the three parts; a NaN counts as a null."""
    rows = scan([file for part in PARTS for file in training_set.files(part)])
    schema, features = rows.collect_schema(), list(training_set.manifest["features"])
    missing = {n: pl.col(n).is_null() | (pl.col(n).is_nan() if schema[n].is_float() else False) for n in features}
    return (
        rows.select(share.mean().alias(n) for n, share in missing.items())
        .collect(engine="streaming")
        .row(0, named=True)
    )


def _newest(sample: Sample) -> dict[str, str | None]:
    """When the newest row of each source with a clock became known (ISO 8601); None: it has none."""
    clocks = [source.name for source in sample.project.definitions.sources if not source.static]
    found = {}
    for name in clocks:
        rows = sample.sources[name].scan(as_of=sample.as_of)
        newest = rows.select(pl.col(KNOWN_TIME).max()).collect(engine="streaming").item()
        found[name] = newest.isoformat() if newest else None
    return found

"""A version of a small project, trained in a moment and without Ray, and the scores of a table by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import polars as pl
import pytest
import xgboost as xgb

from raypipe.features.online_build import build_online_state
from raypipe.features.serving_spec import serving_spec
from raypipe.features.training_set import build_training_set
from raypipe.registry.bundle import LINEAGE, METRICS, MODEL, SERVING, TRANSFORMS, read_bundle, write_bundle
from raypipe.scoring.batch import score_table
from raypipe.scoring.output import Answering
from raypipe.scoring.plan import Ask, columns_to_keep, looked_up
from raypipe.scoring.table import find_table
from raypipe.serving.model import LoadedModel

OBJECTIVE = {
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    "regression": "reg:squarederror",
    "ranking": "rank:ndcg",
}
AS_OF = datetime(2024, 2, 8, tzinfo=UTC)


def grown(task: str, training_set: Any) -> bytes:
    """The trees of eight rounds."""
    transforms, frame = training_set.transforms(), pl.read_parquet(training_set.files("train"))
    frame = frame.sort("group") if task == "ranking" else frame
    rows = xgb.DMatrix(
        transforms.matrix(frame, training=True),
        transforms.labels(frame),
        feature_names=transforms.names,
        feature_types=transforms.feature_types,
        enable_categorical=True,
    )
    if "base_margin" in frame.columns:
        rows.set_base_margin(frame["base_margin"].to_numpy())
    if task == "ranking":
        rows.set_group(frame.group_by("group", maintain_order=True).len()["len"].to_numpy())
    classes = {"num_class": len(transforms.classes)} if transforms.classes else {}
    params = {"objective": OBJECTIVE[task], "max_depth": 3, "seed": 1, "nthread": 1, **classes}
    return bytes(xgb.train(params, rows, 8).save_raw("ubj"))


class Scorer:
    """A project with a version of it; `score` scores a table in the project's folder."""

    def __init__(self, project: Any, sources: dict[str, Any], training_set: Any) -> None:
        self.project, self.sources, self.training_set = project, sources, training_set
        documents = {
            TRANSFORMS: training_set.transforms().to_json(),
            SERVING: serving_spec(project.definitions).to_json(),
            METRICS: {},
            LINEAGE: {},
        }
        files = {name: orjson.dumps(document) for name, document in documents.items()}
        trees = grown(project.definitions.label.task, training_set)
        self.digest, self.uri = write_bundle(project.storage / "bundles", files | {MODEL: trees})
        self.bundle = read_bundle(self.uri, self.digest)

    def online(self, as_of: datetime) -> LoadedModel:
        """What a replica has loaded, with the online state of that time."""
        state = build_online_state(self.project, self.sources, as_of)
        pointer = {"online": str(state.folder), "online_identity": state.identity}
        return LoadedModel("1", {"bundle": self.uri, "digest": self.digest, **pointer}, max_past_us=10**12)

    def ask(self, table: str, keep: tuple[str, ...] = (), as_of: datetime | None = None) -> Ask:
        found = find_table(self.project.folder, table, self.project.storage / "scored_tables")
        kept = columns_to_keep(self.project, found, self.bundle, keep)
        return Ask(found, Answering(self.project.settings.name, 1, self.uri, self.digest), self.bundle, kept, as_of)

    def score(self, table: str = "ask.parquet", **asked: Any) -> SimpleNamespace:
        """The scores, with the frames that lie there, and the chunks that had to be made."""
        policy = {name: asked.pop(name) for name in ("on_bad_rows",) if name in asked}
        plan, sources = asked.pop("plan", "local"), asked.pop("sources", self.sources)
        used = {view.source.name: sources[view.source.name] for view in looked_up(self.project)}
        made: list[Any] = []
        scored = score_table(self.project, used, self.ask(table, **asked), plan, done=made.append, **policy)
        frames = {kind: [pl.read_parquet(path) for path in scored.files(kind)] for kind in ("scores", "quarantine")}
        return SimpleNamespace(
            scored=scored,
            made=len(made),
            rows=pl.concat(frames["scores"]) if frames["scores"] else None,
            aside=pl.concat(frames["quarantine"]) if frames["quarantine"] else None,
        )

    def with_chunks(self, rows: int) -> Scorer:
        """The same with chunks of so many rows."""
        other = object.__new__(Scorer)
        other.__dict__ |= self.__dict__
        scoring = self.project.settings.scoring.model_copy(update={"chunk_rows": rows})
        settings = self.project.settings.model_copy(update={"scoring": scoring})
        other.project = replace(self.project, settings=settings)
        return other


@pytest.fixture(scope="session")
def scorer(prepared: Callable[[Path], SimpleNamespace]) -> Callable[[Path], Scorer]:
    """The version that a project's training set makes."""

    def make(folder: Path) -> Scorer:
        found = prepared(folder)
        return Scorer(found.project, found.sources, build_training_set(found.project, found.sources, "local"))

    return make


@pytest.fixture(scope="session")
def as_of() -> datetime:
    return AS_OF


@pytest.fixture(scope="session")
def shop_scorer(scorer, shop, tmp_path_factory) -> Scorer:
    """The small project's version; chunks of 100 rows."""
    folder = shop(tmp_path_factory.mktemp("scored"), settings={"scoring.chunk_rows": 100})
    return scorer(folder)

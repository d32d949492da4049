"""A small project in git, with its training set, and its steps in this process; versions without training."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.cli.scaffold import scaffold
from raypipe.data.digest import digest_of
from raypipe.data.publish import Output, publish
from raypipe.data.sources import prepare_source
from raypipe.evaluation.evaluate import Evaluation
from raypipe.evaluation.gate import Finding, Verdict
from raypipe.features.training_set import build_training_set
from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
from raypipe.pipeline.progress import Progress
from raypipe.pipeline.steps import Pipeline
from raypipe.project import load_project
from raypipe.registry.bundle import write_bundle
from raypipe.registry.ledger import Entry, Ledger
from raypipe.registry.registered_model import Version
from raypipe.registry.store import Store
from raypipe.registry.tracking import Registry

SETTINGS = {
    "training__workers": 1,
    "training__threads": 1,
    "training__rounds": 12,
    "training__price_per_core_hour": 0.5,
    "training__monotone": {"order_distance_km": 1},
    "training__interactions": [["order_distance_km", "order_hour"]],
}


def git(folder: Path, *arguments: str) -> str:
    named = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    done = subprocess.run(["git", *named, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def pipeline_of(folder: Path) -> SimpleNamespace:
    """The folder's steps, training set and MLflow client."""
    project = load_project(folder)
    sources = {source: prepare_source(project, source) for source in project.settings.sources}
    training_set = build_training_set(project, sources, "local")
    progress = Progress()
    steps = Pipeline(project, progress, ClusterOnDemand(progress), plan="local")
    return SimpleNamespace(project=project, training_set=training_set, steps=steps, store=Store(project))


@pytest.fixture
def opened() -> Callable[[Path], SimpleNamespace]:
    return pipeline_of


@pytest.fixture(scope="session")
def template(tmp_path_factory, edited, with_store) -> Path:
    """`raypipe init`'s project in git, with its training set and an MLflow store without an experiment."""
    folder = tmp_path_factory.mktemp("template") / "project"
    scaffold(folder)
    git(folder, "init", "--quiet")
    pipeline_of(edited(with_store(folder), **SETTINGS))
    return folder


@pytest.fixture(scope="module")
def module_made(template, tmp_path_factory, edited) -> Callable[..., SimpleNamespace]:
    def make(**settings: Any) -> SimpleNamespace:
        folder = tmp_path_factory.mktemp("copy") / "project"
        shutil.copytree(template, folder)
        edited(folder, **settings)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", "a project")
        return pipeline_of(folder)

    return make


@pytest.fixture
def made(module_made, monkeypatch) -> Callable[..., SimpleNamespace]:
    """A copy of the project with changed settings, all committed."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return module_made


@pytest.fixture(scope="module")
def trained(module_made) -> SimpleNamespace:
    """A copy with its run, for tests that only look."""
    p = module_made()
    p.run = p.steps.train(p.training_set)
    [p.logged] = p.store.client.search_runs([p.store.experiment])
    return p


@pytest.fixture
def runs() -> Callable[[SimpleNamespace], list[Any]]:
    """All runs of the project in MLflow."""
    return lambda p: p.store.client.search_runs([p.store.experiment])


# ---- versions without training ----------------------------------------------------------------

START = datetime(2026, 10, 3, 14, 3, tzinfo=UTC)
DEFINITIONS = "d" * 64


class Shelf:
    """A project whose versions are made by hand: all of their files, and no model inside."""

    def __init__(self, folder: Path, minutes: int = 0) -> None:
        self.folder, self.project, self._minutes = folder, load_project(folder), minutes
        self.storage, self.registry, self._store = self.project.storage, Registry(self.project), Store(self.project)
        self.client, self.model = self._store.client, self.project.settings.name
        self.ledger = Ledger.of(self.project)

    def now(self) -> datetime:
        """A minute later than when it was asked before."""
        self._minutes += 1
        return START + timedelta(minutes=self._minutes)

    def evaluation(self, verdict: str, name: str) -> Evaluation:
        """An evaluation of a run `name`, published, with that run and its training set of two partitions."""
        training_set, run, evaluation = (digest_of([name, kind]) for kind in ("set", "run", "evaluation"))
        partitions = [digest_of([name, part]) for part in (1, 2)]
        for partition in partitions:
            self._publish("features", partition, "rows-0.parquet", b"rows")
        files = [{"name": f"{partition}/attempt/rows-0.parquet", "part": "train"} for partition in partitions]
        self._publish("training_sets", training_set, "transforms.json", b"{}", files=files)
        self._publish("runs", run, "model.ubj", name.encode(), training_set=training_set)
        result = {"run": {"digest": run}, "model": {"roc_auc": 0.7}}
        output = self._publish("evaluations", evaluation, "evaluation.json", json.dumps(result).encode())
        findings = [Finding("roc_auc > 0.6", verdict, 0.7, 0.6)]
        return Evaluation(output, result, Verdict(verdict, findings))

    def add(self, verdict: str = "pass", name: str | None = None) -> Version:
        """A registered version, with that verdict in its bundle and its tags."""
        name = name or f"model {self._minutes}"
        made = self.evaluation(verdict, name)
        run = made.result["run"]["digest"]
        files = {
            "model.ubj": name.encode(),
            "metrics.json": json.dumps(made.result | {"verdict": made.verdict.to_json()}).encode(),
            "lineage.json": json.dumps({"run": run, "definitions": {"digest": DEFINITIONS}}).encode(),
        }
        digest, uri = write_bundle(self.storage / "bundles", files)
        tags = {"bundle_digest": digest, "run_digest": run, "evaluation": made.digest, "verdict": verdict, "definitions_digest": DEFINITIONS}  # fmt: skip
        run_id = self.client.create_run(self._store.experiment).info.run_id
        return self.registry.register(run_id, uri=uri, tags=tags, at=self.now())

    def promote(self, number: int, override: str | None = None) -> Entry | None:
        return self.registry.promote(number, at=self.now(), override=override)

    def rollback(self, bad: int | None = None) -> Entry | None:
        return self.registry.rollback(at=self.now(), bad=bad)

    def retire(self, number: int) -> Entry | None:
        return self.registry.retire(number, at=self.now())

    def alias(self) -> int | None:
        """The champion as MLflow has it."""
        number = self.client.get_registered_model(self.model).aliases.get("champion")
        return None if number is None else int(number)

    def actions(self) -> list[str]:
        return [entry.change.action for entry in self.ledger.entries()]

    def entry(self, number: int) -> Path:
        return self.storage / "ledger" / f"{number:08}.json"

    def _publish(self, kind: str, name: str, file: str, content: bytes, **manifest: Any) -> Output:
        def build(attempt: Path) -> dict[str, Any]:
            (attempt / file).write_bytes(content)
            return manifest

        return publish(self.storage / kind / name, build)


@pytest.fixture(scope="session")
def new_shelf(template, tmp_path_factory) -> Iterator[Callable[[], Shelf]]:
    """Empty shelves. Changes are recorded as those of `ada`."""

    def make() -> Shelf:
        folder = tmp_path_factory.mktemp("shelf") / "project"
        shutil.copytree(template, folder)
        for kind in ("features", "training_sets"):  # the template's own
            shutil.rmtree(folder / ".raypipe" / kind)
        return Shelf(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYPIPE_WHO", "ada")
        yield make


@pytest.fixture
def shelf(new_shelf) -> Shelf:
    return new_shelf()


@pytest.fixture
def copied(tmp_path) -> Callable[[Shelf], Shelf]:
    """A copy of a shelf, whose versions have the copied bundles."""

    def copy(original: Shelf) -> Shelf:
        folder = shutil.copytree(original.folder, tmp_path / "project")
        with sqlite3.connect(folder / ".raypipe" / "mlflow" / "mlflow.db") as database:
            places = (original.folder.as_uri(), folder.as_uri())
            database.execute("UPDATE model_versions SET source = replace(source, ?, ?)", places)
        database.close()
        return Shelf(folder, minutes=1000)

    return copy

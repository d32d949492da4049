"""Training runs in MLflow, one for each run digest.

A run is logged when its training has ended, and is marked FINISHED last: one that is not was interrupted, and is logged
again into the same place. Everything that is logged is a function of what was published, so that does not change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import polars as pl
import xgboost as xgb

from raypipe.data.digest import short
from raypipe.data.split import TRAIN, VALIDATION
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.evaluation import plots
from raypipe.evaluation.evaluate import Evaluation, importance
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project
from raypipe.project.code_identity import code_identity
from raypipe.registry import run_content as content
from raypipe.registry.store import Store
from raypipe.training.train import Run, job_of, run_folder

TOP = 30  # features in the importance plot and table


@dataclass(frozen=True)
class Logged:
    """A run in MLflow; `reused`: it was there already."""

    run_id: str
    name: str
    reused: bool


class RunLog:
    """The project's runs in MLflow. Its methods raise RegistryError where MLflow cannot be reached."""

    def __init__(self, project: Project) -> None:
        self._project, self._store = project, Store(project)

    def require_reachable(self) -> None:
        """Before time is spent on what shall be recorded."""
        with self._store.reaching():
            assert self._store.experiment

    def record(self, training_set: TrainingSet, run: Run) -> Logged:
        """Log a finished run, unless it is there."""
        with self._store.reaching(), self._store.alone():
            found = self._find(run.digest, "attributes.status = 'FINISHED'")
            if found:
                return Logged(str(found.info.run_id), str(found.info.run_name), reused=True)
            m = run.manifest
            began = datetime.fromisoformat(m["started_at"])
            opened = self._open(run.digest, began)
            run_id, name = str(opened.info.run_id), str(opened.info.run_name)
            params = content.params(m["settings"], m["params"]) | content.layout_params(m)
            tags = content.tags(self._project, training_set, run.digest, m["code"]) | content.run_tags(m)
            tags[content.NOTE] = content.note(self._project, training_set, m, _periods(training_set))
            points = content.points(m)
            self._log(run_id, params=params, points=points, tags=tags)
            self._log_data(run_id, training_set)
            self._log_artifacts(run_id, run)
            for tag in content.ERROR:
                if tag in opened.data.tags:  # it failed before it finished
                    self._store.client.delete_tag(run_id, tag)
            self._store.client.set_terminated(run_id, "FINISHED", _milliseconds(points[-1].at))
        return Logged(run_id, name, reused=False)

    def record_failure(
        self, training_set: TrainingSet, error: BaseException, began: datetime, ended: datetime
    ) -> Logged:
        """Log that the run of the project's settings ended without a model. The next attempt takes its place."""
        project, code = self._project, code_identity(self._project.folder)
        digest = run_folder(project, training_set).name
        job = job_of(project, training_set, 1, project.folder)
        said = content.error_tags(error)
        tags = content.tags(project, training_set, digest, code) | said
        tags[content.NOTE] = content.failure_note(project, training_set, said, code)
        with self._store.reaching(), self._store.alone():
            opened = self._open(digest, began)
            run_id = str(opened.info.run_id)
            settings = project.settings.training.model_dump(mode="json")
            self._log(run_id, params=content.params(settings, job.recipe.params), tags=tags)
            self._log_data(run_id, training_set)
            self._store.client.set_terminated(run_id, "FAILED", _milliseconds(ended))
        return Logged(run_id, str(opened.info.run_name), reused=False)

    def add_evaluation(self, run_id: str, evaluation: Evaluation, at: datetime) -> None:
        """Add the test metrics, the report, the model card and the verdict to a recorded run, unless they are there."""
        with self._store.reaching(), self._store.alone():
            tags = self._store.client.get_run(run_id).data.tags
            if tags.get("evaluation") == evaluation.digest:
                return
            points = content.test_points(evaluation.metrics, at)
            note = content.with_test(tags.get(content.NOTE, ""), evaluation.metrics, evaluation.verdict.outcome)
            self._log(run_id, points=points, tags={content.NOTE: note})
            for page in (evaluation.report, evaluation.card):
                self._store.client.log_artifact(run_id, str(page), "evaluation")
            self._log(run_id, tags={"verdict": evaluation.verdict.outcome, "evaluation": evaluation.digest})

    def _find(self, digest: str, also: str) -> Any:
        condition = f"tags.run_digest = '{digest}' and {also}"
        found = self._store.client.search_runs([self._store.experiment], condition, max_results=1)
        return found[0] if found else None

    def _open(self, digest: str, began: datetime) -> Any:
        """The run that was begun and has not finished, or a new one."""
        found = self._find(digest, "attributes.status != 'FINISHED'")
        return found or self._store.client.create_run(
            self._store.experiment,
            start_time=_milliseconds(began),
            run_name=content.run_name(self._store.model, digest, began),
            tags={"run_digest": digest},
        )

    def _log(
        self,
        run_id: str,
        *,
        params: dict[str, str] | None = None,
        points: Sequence[content.Point] = (),
        tags: dict[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        client = self._store.client
        metrics = [Metric(p.name, p.value, _milliseconds(p.at), p.step) for p in points]
        for some in _batches(metrics, 1000):  # the most that MLflow takes at once
            client.log_batch(run_id, metrics=some)
        for some in _batches([Param(*item) for item in (params or {}).items()], 100):
            client.log_batch(run_id, params=some)
        for some in _batches([RunTag(*item) for item in (tags or {}).items()], 100):
            client.log_batch(run_id, tags=some)

    def _log_data(self, run_id: str, training_set: TrainingSet) -> None:
        """The training set as the run's data set, which MLflow lists beside the run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        sources = {name: source["digest"] for name, source in training_set.manifest["sources"].items()}
        dataset = Dataset(
            name="training set",
            digest=short(training_set.digest),
            source_type="raypipe",
            source=orjson.dumps({"training_set": training_set.digest, "sources": sources}).decode(),
            profile=orjson.dumps(training_set.manifest["parts"]).decode(),
        )
        self._store.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _log_artifacts(self, run_id: str, run: Run) -> None:
        client, booster = self._store.client, xgb.Booster(model_file=str(run.model_path))
        shares, total = importance(booster), booster.get_score(importance_type="total_gain")
        splits = booster.get_score(importance_type="weight")
        names = list(shares)[:TOP]
        table = pl.DataFrame(
            {
                "feature": names,
                "share_of_gain": [shares[name] for name in names],
                "gain": [total[name] for name in names],
                "splits": [int(splits[name]) for name in names],  # type: ignore[arg-type]
            }
        )
        environment = run.manifest["environment"]
        pinned = [f"{name}=={at}" for name, at in environment.items() if name != "python"]
        client.log_figure(run_id, plots.learning_curve(run.manifest), "learning_curve.png")
        client.log_figure(run_id, plots.importance(shares, TOP), "feature_importance.png")
        client.log_text(run_id, table.write_csv(), "feature_importance.csv")
        client.log_text(run_id, "\n".join([f"# Python {environment['python']}", *pinned, ""]), "environment.txt")
        client.log_artifacts(run_id, str(run.code), "code")


def _periods(training_set: TrainingSet) -> dict[str, content.Period]:
    """The first and last prediction time of the parts that a model learns from. Reads that column."""
    found = {}
    for part in (TRAIN, VALIDATION):
        times = pl.scan_parquet(training_set.files(part), glob=False).select(
            first=pl.col(PREDICTION_TIME).min(), last=pl.col(PREDICTION_TIME).max()
        )
        found[part] = times.collect().row(0)
    return {part: (first, last) for part, (first, last) in found.items() if first is not None}


def _batches(entries: list[Any], size: int) -> list[list[Any]]:
    return [entries[start : start + size] for start in range(0, len(entries), size)]


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)

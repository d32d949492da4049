"""The steps. Each does what is missing, or finds that it is done; a killed run continues where it was."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from raypipe.cluster.connect import joins_a_cluster
from raypipe.data.digest import short
from raypipe.data.sources import PreparedSource, prepare_source
from raypipe.data.split import PARTS
from raypipe.errors import GateRefusedError, RegistryError, StorageError
from raypipe.evaluation.champion import Champion
from raypipe.evaluation.data_evidence import DataEvidence, examine
from raypipe.evaluation.evaluate import Evaluation, evaluate
from raypipe.evaluation.gate import judge
from raypipe.evaluation.gate_figures import data_evidence_of
from raypipe.evaluation.names import headlines
from raypipe.evaluation.rules import Rule, rules_of
from raypipe.features.training_set import TrainingSet, build_training_set, choose_plan, find_planned, plan_training_set
from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
from raypipe.pipeline.lineage_events import LineageEvents, told
from raypipe.pipeline.progress import Counter, Progress, Step
from raypipe.pipeline.step_words import broken_rules, trained
from raypipe.project import Project
from raypipe.registry.bundle import is_there, read_bundle
from raypipe.registry.lifecycle import require_not_withdrawn
from raypipe.registry.package import package
from raypipe.registry.registered_model import Version
from raypipe.registry.runs import RunLog
from raypipe.registry.tracking import Registry
from raypipe.training.layout import Layout
from raypipe.training.objective import check_training
from raypipe.training.train import Run, find_run, layout_of, needs_cluster_first, require_possible, train

if TYPE_CHECKING:
    from raypipe.tuning.tune import Tuned

Sources = dict[str, PreparedSource]


@dataclass(frozen=True)
class Pipeline:
    """A project with what its steps share."""

    project: Project
    progress: Progress
    cluster: ClusterOnDemand
    as_of: datetime | None = None
    plan: str | None = None  # overrides features.plan of project.yaml
    tuned: Tuned | None = None  # where the project's training.params come from
    events: LineageEvents | None = None  # who tells others of the steps

    def contracts(self) -> Sources:
        """Check every source. Raises DataError or DataContractError."""
        definitions = self.project.definitions
        self._rules()  # before time is spent on data
        check_training(self.project.settings.training, definitions.label.task, definitions.features())
        return self.prepared([source.name for source in definitions.sources])

    def prepared(self, names: Collection[str]) -> Sources:
        """The sources of these names, checked. Raises DataError or DataContractError."""
        if not names:
            return {}
        with self.progress.step("contracts") as step:
            wanted = [source.name for source in self.project.definitions.sources if source.name in names]
            sources = {name: prepare_source(self.project, name) for name in wanted}
            rows = sum(source.rows for source in sources.values())
            step.say(f"{len(sources)} sources, {rows:,} rows", reused=all(s.reused for s in sources.values()))
        for source in sources.values():
            for line in broken_rules(source, self.project.folder):
                self.progress.note(f"            {line}")
        return sources

    @told("features")
    def features(self, sources: Sources) -> TrainingSet:
        """The training set of the sources."""
        planned = plan_training_set(self.project, sources, self.as_of)
        found = find_planned(self.project, planned)
        plan, why = self.plan_of(sources)
        if found is None and plan == "distributed":
            self.cluster.connect()
        with self.progress.step("features") as step:
            built = Counter(len(planned.partitions), step)
            made = found or build_training_set(
                self.project, sources, plan, self.as_of, built=built.one, say=step.at, planned=planned
            )
            rows = sum(made.rows(part) for part in PARTS)
            how = f", {made.manifest['split']}" if self.project.definitions.label.spine.static else ""
            how += f", {built.words()}, {plan} plan ({why})" if found is None else ""
            step.say(
                f"training set {short(made.digest)}: {rows:,} rows, {len(made.manifest['features'])} features{how}",
                reused=made.reused,
            )
        return made

    def plan_of(self, sources: Sources) -> tuple[str, str]:
        """`local` or `distributed`, and why."""
        settings = self.project.settings.features
        return choose_plan(self.plan or settings.plan, settings, sources)

    def examine(self, sources: Sources, training_set: TrainingSet) -> DataEvidence:
        """What can be said against the data. Raises GateRefusedError if a rule over it alone fails, before time is
        spent on training."""
        with self.progress.step("evidence") as step:
            made = examine(self.project, sources, training_set, self.as_of or datetime.now(UTC))
            leakage = made.document["leakage"]
            found = f"{len(leakage['found'])} findings" if leakage["found"] else "nothing found"
            step.say(f"{len(leakage['probes'])} leakage probes: {found}", reused=made.reused)
        for one in leakage["found"]:
            self.progress.note(f"            {one['probe']}: {one['says']}")
        rules = [rule for rule in self._rules() if rule.of_data]
        judge(rules, data_evidence_of(made.document)).require_no_fail()
        return made

    def _rules(self) -> list[Rule]:
        return rules_of(self.project.definitions, self.project.settings.evaluation)

    def tune(self, training_set: TrainingSet) -> Pipeline:
        """This pipeline with the best parameters that a search finds, in place of training.params."""
        from raypipe.tuning.tune import find_tuned, require_tunable, tune  # Optuna takes a second

        found = find_tuned(self.project, training_set)
        if found is None:
            require_tunable(self.project, training_set)
            self.cluster.connect()
        with self.progress.step("tuning") as step:
            tuned = found or tune(self.project, training_set, lambda pace: step.at(pace.words()))
            step.say(f"study {short(tuned.digest)}: {tuned.words()}", reused=tuned.reused)
        return replace(self, project=tuned.applied(self.project), tuned=tuned)

    @told("training")
    def train(self, training_set: TrainingSet) -> Run:
        """The run of the project's training settings on the training set, recorded in MLflow."""
        if needs_cluster_first(self.project, training_set):
            self.cluster.connect()
        found = find_run(self.project, training_set) or self._layout(training_set)
        log = RunLog(self.project)  # one for all of it: a second would make a store in place of one that is gone
        with self.progress.step("training") as step:
            run = found if isinstance(found, Run) else self._train(training_set, found, step, log)
            step.say(trained(run), reused=run.reused)
        with self.progress.step("tracking") as step:
            logged = log.record(training_set, run)
            step.say(f"'{logged.name}' in MLflow", reused=logged.reused)
        return run

    def _layout(self, training_set: TrainingSet) -> Layout:
        """How the run is laid out, once it is clear that it can run, with the cluster that it needs."""
        if joins_a_cluster():
            self.cluster.connect()
        layout = layout_of(self.project, training_set)
        require_possible(self.project, training_set, layout)
        if layout.distributed:
            self.cluster.connect()
        return layout

    def _train(self, training_set: TrainingSet, layout: Layout, step: Step, log: RunLog) -> Run:
        log.require_reachable()  # before time is spent
        with self._failure_recorded(training_set, log):
            tuning = self.tuned.digest if self.tuned else None
            return train(self.project, training_set, layout, lambda pace: step.at(pace.words()), tuning=tuning)

    @contextmanager
    def _failure_recorded(self, training_set: TrainingSet, log: RunLog) -> Iterator[None]:
        """A training that fails in the block is recorded; where that fails too, a line says so."""
        began = datetime.now(UTC)
        try:
            yield
        except Exception as error:
            try:
                log.record_failure(training_set, error, began, datetime.now(UTC))
            except (RegistryError, StorageError, OSError) as lost:  # a full disk fails both
                said = ", ".join(line.strip() for line in str(lost).splitlines())
                self.progress.note(f"            the failure is not recorded in MLflow: {said}")
            raise

    @told("evaluation")
    def evaluate(self, training_set: TrainingSet, run: Run, data: DataEvidence | None = None) -> Evaluation:
        """The run's figures on the test part, beside the champion's if there is one, and the gate's verdict."""
        described = run.manifest | {"digest": run.digest, "rounds": run.manifest["best_round"] + 1}
        with self.progress.step("evaluation") as step:
            champion = self._champion(run)
            made = evaluate(self.project, training_set, run.model_path, described, data, champion)
            log = RunLog(self.project)
            log.add_evaluation(log.record(training_set, run).run_id, made, datetime.now(UTC))
            figures = made.metrics
            told = headlines(self.project.definitions.label.task).items()
            step.say(
                ", ".join(f"{title} {figures[name]:.4f}" for name, title in told)
                + f" on {figures['rows']:,} test rows; gate: {made.verdict.outcome}",
                reused=made.reused,
            )
        return made

    def _champion(self, run: Run) -> Champion | None:
        """What serves, unless it is this very run."""
        version = Registry(self.project).champion()
        if version is None or version.run_digest == run.digest:
            return None
        bundle = read_bundle(version.bundle_uri, version.bundle_digest)
        definitions = bundle.lineage["definitions"]["document"]
        return Champion(version.version, version.bundle_digest, bundle.model, bundle.transforms, definitions)

    @told("registration")
    def register(self, training_set: TrainingSet, run: Run, evaluation: Evaluation) -> Version:
        """The registered version of the run. Raises GateRefusedError when the gate does not pass: with the verdict
        recorded and no version made where it fails, with a version that needs an override where it is inconclusive."""
        with self.progress.step("registry") as step:
            registry, now = Registry(self.project), datetime.now(UTC)
            if evaluation.verdict.outcome == "fail":
                registry.record_verdict(evaluation, now)
                evaluation.verdict.require_pass()
            made = (run.digest, evaluation.digest)
            known = next((v for v in registry.versions() if (v.run_digest, v.evaluation) == made), None)
            if known and not is_there(known.bundle_uri):
                known = None  # gc has removed it
            if known:
                registry.record(known, now)
            version = known or self._register(registry, training_set, run, evaluation, now)
            step.say(
                f"version {version.version} of {version.model}, bundle {short(version.bundle_digest)}",
                reused=known is not None,
            )
        try:
            evaluation.verdict.require_pass()
        except GateRefusedError as error:
            error.hint = f'more test rows may decide it; or: raypipe promote {version.version} --override "why"'
            raise
        return version

    def _register(
        self, registry: Registry, training_set: TrainingSet, run: Run, evaluation: Evaluation, now: datetime
    ) -> Version:
        digest, uri, lineage = package(self.project, training_set, run, evaluation)
        tags = {
            "bundle_digest": digest,
            "run_digest": run.digest,
            "evaluation": evaluation.digest,
            "verdict": evaluation.verdict.outcome,
            "definitions_digest": lineage["definitions"]["digest"],
        }
        run_id = RunLog(self.project).record(training_set, run).run_id
        return registry.register(run_id, uri=uri, tags=tags, at=now)

    def promote(self, version: Version) -> Version:
        """Make `version` the champion. Raises GateRefusedError if its verdict is not a pass, or it was rolled back."""
        with self.progress.step("promotion") as step:
            registry = Registry(self.project)
            require_not_withdrawn(registry.releases(), version.version)
            entry = registry.promote(version.version, at=datetime.now(UTC))
            step.say(f"version {version.version} is champion", reused=entry is None)
        return version

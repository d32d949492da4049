"""What a project's online state is of: its identity, and for each source the levels that its rows go into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import polars as pl

import raypipe
from raypipe.data.digest import digest_of
from raypipe.definitions import Definitions, FeatureView, LatestView, Source
from raypipe.definitions.catalogue import source_document
from raypipe.features.online_layout import LatestLevel, Level, levels
from raypipe.features.serving_spec import serving_spec, views_digest
from raypipe.features.window_inputs import Inputs, inputs
from raypipe.project import Project


@dataclass(frozen=True)
class WindowFed:
    """A level with the view that it is of and the view's inputs."""

    level: Level
    view: FeatureView
    inputs: Inputs


@dataclass(frozen=True)
class LatestFed:
    """A latest view's level, and the view."""

    level: LatestLevel
    view: LatestView


Fed = WindowFed | LatestFed


@dataclass(frozen=True)
class SourcePlan:
    """A source that views look at. `number` stands in the keys of the store."""

    number: int
    source: Source
    fed: Sequence[Fed]


@dataclass(frozen=True)
class StatePlan:
    """identity: the digest of all that the bytes of a state depend on but its rows; views: of what a bundle that reads
    it must have too."""

    identity: str
    views: str
    sources: Mapping[str, SourcePlan]


_plans: WeakKeyDictionary[Definitions, StatePlan] = WeakKeyDictionary()


def state_plan(project: Project) -> StatePlan:
    """The plan of a project, made once a process."""
    found = _plans.get(project.definitions)
    if found is None:
        found = _plans[project.definitions] = _make(project.definitions)
    return found


def state_folder(project: Project) -> Path:
    return project.storage / "online" / state_plan(project).identity


def _make(definitions: Definitions) -> StatePlan:
    spec = serving_spec(definitions)
    views = {v.name: v for v in definitions.views if isinstance(v, FeatureView | LatestView)}
    read = {view.source.name for view in views.values()}
    sources = [source for source in definitions.sources if source.name in read]
    identity = digest_of({
        "raypipe": raypipe.__version__,
        "polars": pl.__version__,  # whose hashes are in it
        "views": spec.to_json()["views"],
        "sources": [source_document(source) for source in sources],
    })  # fmt: skip
    fed = [_fed(level, views[level.view.name]) for level in levels(spec.views)]
    plans = {
        source.name: SourcePlan(number, source, [f for f in fed if f.view.source.name == source.name])
        for number, source in enumerate(sources)
    }
    return StatePlan(identity, views_digest(spec), plans)


def _fed(level: Level | LatestLevel, view: FeatureView | LatestView) -> Fed:
    if isinstance(level, Level):
        assert isinstance(view, FeatureView)
        return WindowFed(level, view, inputs(view))
    assert isinstance(view, LatestView)
    return LatestFed(level, view)

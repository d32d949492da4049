"""All definitions of a project together: the cross-checks, and their identity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import orjson
import polars as pl

from raypipe.definitions import behaviour, checks
from raypipe.definitions.behaviour import Behaviour, Direction, Invariance, MinimumFunctionality
from raypipe.definitions.expressions import roots, to_json
from raypipe.definitions.label import BESIDE, LABEL, LABEL_KNOWN_TIME, PREDICTION_TIME, Label, as_expression
from raypipe.definitions.source import Source
from raypipe.definitions.views import DerivedView, FeatureView, LatestView, RequestView, View
from raypipe.errors import DefinitionError


@dataclass(frozen=True, eq=False)
class Definitions:
    """Sources, views, label and behavioural tests of a project, checked against each other (`check`)."""

    sources: tuple[Source, ...]
    views: tuple[View, ...]
    label: Label
    behaviours: tuple[Behaviour, ...] = ()

    @classmethod
    def collect(cls, module: ModuleType) -> Definitions:
        """Everything that `module` declares at its top level, views in the order they stand there."""
        values = list({id(value): value for value in vars(module).values()}.values())
        declared = [v for v in values if isinstance(v, FeatureView | LatestView | RequestView | DerivedView)]
        views = tuple(v for view in declared for v in (view.per_entity() if isinstance(view, FeatureView) else [view]))
        labels = [v for v in values if isinstance(v, Label)]
        if len(labels) != 1:
            raise DefinitionError("features.py must declare one Label", got=f"{len(labels)} labels")
        named = [v for v in values if isinstance(v, Source)]
        used = [labels[0].spine, *(v.source for v in views if isinstance(v, FeatureView | LatestView))]
        sources = tuple({id(s): s for s in [*named, *used]}.values())
        tests = tuple(v for v in values if isinstance(v, Invariance | Direction | MinimumFunctionality))
        definitions = cls(sources, views, labels[0], tests)
        definitions.check()
        return definitions

    def source(self, name: str) -> Source:
        return next(source for source in self.sources if source.name == name)

    def check(self) -> None:
        """Raise DefinitionError (or LeakError) for the first thing that cannot be right."""
        checks.check_unique("source", [s.name for s in self.sources])
        checks.check_unique("view", [v.name for v in self.views])
        if not self.views:
            raise DefinitionError("features.py declares no feature view")
        for source in self.sources:
            checks.check_source(source)
        checks.check_label(self.label)
        known: dict[str, pl.DataType] = {}
        names = [*self.label.request, PREDICTION_TIME, LABEL, LABEL_KNOWN_TIME, *BESIDE]
        for view in self.views:
            checks.check_view(view, self.label, known)
            found = features_of(view, self.label, known)
            known |= found
            names += found
        checks.check_unique("feature", names)
        checks.check_unique("behavioural test", [test.name for test in self.behaviours])
        for test in self.behaviours:
            behaviour.check(test, self.label, self.views, known)

    def features(self) -> dict[str, pl.DataType]:
        """Every feature's name and type, in column order."""
        return {name: dtype for features in self.features_by_view().values() for name, dtype in features.items()}

    def features_by_view(self) -> dict[str, dict[str, pl.DataType]]:
        """Each view's features, in column order."""
        found: dict[str, dict[str, pl.DataType]] = {}
        before: dict[str, pl.DataType] = {}
        for view in self.views:
            found[view.name] = features_of(view, self.label, before)
            before |= found[view.name]
        return found

    def personal(self) -> set[str]:
        """The request columns and features that are made of a personal column: no report may show their values."""
        found = _personal_of(self.label.spine) & set(self.label.request)
        for view in self.views:
            if isinstance(view, FeatureView | LatestView):
                found |= _personal_features(view)
            else:
                for name, expression in view.expressions.items():
                    found |= {f"{view.name}_{name}"} if found & set(roots(expression)) else set()
        return found

    def document(self) -> dict[str, Any]:
        """The definitions as JSON-able data, without any code: what the identity is taken of. Behavioural tests are
        none of it: they ask things of a model, and change nothing in what it learns from."""
        return {
            "sources": [source_document(source) for source in self.sources],
            "views": [view_document(view) for view in self.views],
            "label": label_document(self.label),
        }

    def digest(self) -> str:
        return hashlib.sha256(orjson.dumps(self.document(), option=orjson.OPT_SORT_KEYS)).hexdigest()


def features_of(view: View, label: Label, before: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    """Feature names and types of a view; `before`: the features of the views declared before it."""
    if isinstance(view, FeatureView | LatestView):
        return view.features()
    scope = checks.scope(view, label, before)
    try:
        return dict(pl.DataFrame(schema=scope).lazy().select(view.columns()).collect_schema())
    except pl.exceptions.PolarsError as error:
        raise DefinitionError(
            "an expression cannot be computed",
            where=f"{type(view).__name__}('{view.name}')",
            got=str(error).splitlines()[0],
        ) from None


def _personal_of(source: Source) -> set[str]:
    """The source's columns that are personal, or derived from one that is."""
    marked = set(source.personal())
    return {name for name, columns in checks.file_columns(source).items() if columns & marked}


def _personal_features(view: FeatureView | LatestView) -> set[str]:
    personal = _personal_of(view.source)
    if isinstance(view, LatestView):
        return {f"{view.name}_{column}" for column in view.columns if column in personal}
    inputs = {name: a.input for name, a in view.aggregations.items() if a.input is not None}
    marked = [name for name, value in inputs.items() if personal & set(roots(value))]
    return {f"{view.name}_{window}_{name}" for window in view.windows for name in marked}


# ---- documents ---------------------------------------------------------------------------------


def view_document(view: View) -> dict[str, Any]:
    """A view as JSON-able data."""
    where = f"{type(view).__name__}('{view.name}')"
    document: dict[str, Any] = {"kind": type(view).__name__, "name": view.name}
    if isinstance(view, RequestView | DerivedView):
        return document | {"expressions": {n: to_json(e, where=where) for n, e in view.expressions.items()}}
    document |= {"source": view.source.name, "entity": list(view.entity)}
    if isinstance(view, LatestView):
        return document | {"columns": list(view.columns), "max_age": view.max_age, "static": view.source.static}
    return document | {
        "windows": list(view.windows),
        "hop": view.hop,
        "aggregations": {
            name: {"kind": a.kind, "q": a.q, "input": None if a.input is None else to_json(a.input, where=where)}
            for name, a in view.aggregations.items()
        },
    }


def label_document(label: Label) -> dict[str, Any]:
    where, time = f"Label('{label.name}')", label.prediction_time
    beside = {"weight": label.weight, "base_margin": label.base_margin, "group": label.group}
    return {
        "name": label.name,
        "task": label.task,
        "spine": label.spine.name,
        "request": list(label.request),
        "prediction_time": None if time is None else to_json(time, where=where),
        "target": to_json(label.target, where=where),
        **{role: None if e is None else to_json(as_expression(e), where=where) for role, e in beside.items()},
    }


def source_document(source: Source) -> dict[str, Any]:
    """A source as JSON-able data. Raises DefinitionError if a rule or a derived column holds code."""
    where = f"Source('{source.name}')"
    rules = source.contract._validation_rules(with_cast=False)  # noqa: SLF001 (the only way to all rules)
    return {
        "name": source.name,
        "clock": [source.event_time, source.known_time, source.delay, source.static],
        "corrections": source.corrections,
        "known_ahead": sorted(source.known_ahead),
        "derive": {name: to_json(e, where=where) for name, e in source.derive.items()},
        "schema": {name: str(dtype) for name, dtype in source.file_schema().items()},
        "rules": {name: to_json(rule.expr, where=where) for name, rule in rules.items()},
    }

"""Features beside a run: those of a range of time, what building would take, and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from raypipe.data.publish import find
from raypipe.errors import NotEnoughDataError
from raypipe.features.build import build_partitions, folder_of, missing, most_rows, survey_spine
from raypipe.features.explain import by_view
from raypipe.features.explain import explain as explained
from raypipe.features.partitions import Partition
from raypipe.features.spine import Survey, within
from raypipe.features.training_set import plan_training_set
from raypipe.pipeline.progress import Counter
from raypipe.pipeline.steps import Pipeline, Sources

Span = tuple[datetime | None, datetime | None]  # from, to before; None: unbounded


def backfill(pipeline: Pipeline, sources: Sources, span: Span) -> list[Partition]:
    """The features of all spine rows with a prediction time in `span`: what is missing is built, by whole partitions.
    Raises NotEnoughDataError if there is no row."""
    project, as_of = pipeline.project, pipeline.as_of
    survey = survey_spine(project, sources, as_of)
    wanted = _wanted(survey, span)
    plan, why = pipeline.plan_of(sources)
    if plan == "distributed" and missing(project, wanted, sources, as_of):
        pipeline.cluster.connect()
    with pipeline.progress.step("features") as step:
        built = Counter(len(wanted), step)
        build_partitions(project, sources, survey, wanted, plan=plan, as_of=as_of, built=built.one, say=step.at)
        rows = sum(partition.rows for partition in wanted)
        step.say(f"{rows:,} rows, {built.words()}, {plan} plan ({why})", reused=not built.built)
    return wanted


def explain(pipeline: Pipeline, sources: Sources, span: Span | None) -> dict[str, Any]:
    """What `Pipeline.features` (without a span) or `backfill` would do. Nothing is built."""
    project, as_of = pipeline.project, pipeline.as_of
    if span is None:
        wanted = plan_training_set(project, sources, as_of).partitions
    else:
        wanted = _wanted(survey_spine(project, sources, as_of), span)
    plan, why = pipeline.plan_of(sources)
    lacking, most = missing(project, wanted, sources, as_of), most_rows(project, plan)
    told = explained(project.definitions, sources, wanted, lacking, most_rows=most, as_of=as_of)
    return {"plan": plan, "because": why, **told}


def took(pipeline: Pipeline, sources: Sources, partitions: Sequence[Partition]) -> dict[str, Any]:
    """What building these partitions took and made, by view."""
    found = [find(folder_of(pipeline.project, partition, sources, pipeline.as_of)) for partition in partitions]
    return by_view(pipeline.project.definitions, [output for output in found if output])


def _wanted(survey: Survey, span: Span) -> list[Partition]:
    wanted = within(survey.partitions, *span)
    if not wanted:
        raise NotEnoughDataError("no row of the spine has a prediction time in that range", where="--from, --to")
    return wanted

"""Score a table: the chunks that are missing, by either plan, each published as soon as it is done; then all of them
as one output.

`<storage>/score_chunks/<digest>/` holds a chunk's files (raypipe.scoring.output). When all are there,
`<storage>/scores/<digest>/` is published: the same files under the numbers of their chunks, in the order of the table's
rows, and a manifest. A killed job leaves no scores, and the chunks that it had done; running it again does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

import raypipe.training.lean_xgboost  # noqa: F401 (ahead of what imports XGBoost as it is)
from raypipe.data.publish import Output, attempts, commit, find
from raypipe.errors import DataContractError
from raypipe.features.exchange import Scratch
from raypipe.features.job import Build, Say, computing
from raypipe.features.partitions import Sources
from raypipe.features.plan_local import looked_up as features_looked_up
from raypipe.project import Project
from raypipe.scoring.job import ScoreJob
from raypipe.scoring.plan import Ask, ChunkPlan, looked_up, partition_of, plan_scores, together
from raypipe.scoring.scores import Scored, find_scores, publish_scores
from raypipe.scoring.table import readable

OnBadRows = Literal["refuse", "quarantine"]
Done = Callable[[Output], None]
_LOCAL_CHUNKS = 4  # computed together where views look at sources, which are read once for all of them


def score_table(
    project: Project,
    sources: Sources,
    ask: Ask,
    plan: str,
    *,
    on_bad_rows: OnBadRows = "refuse",
    done: Done = lambda output: None,
    say: Say = lambda words: None,
) -> Scored:
    """The scores of a table, made or found; `sources` are those that views look at. `plan` is `local` or `distributed`
    and no part of the identity: both give the same bytes. `done` hears of each chunk that is made, `say` of the way.

    Runs in the driver; with `plan` distributed it needs a connection to a Ray cluster. Raises DataContractError for
    rows that break the request contract, unless they are to be set aside.
    """
    with Scratch.make(project.storage) as scratch, readable(ask.table, scratch.folder) as table:
        wanted = plan_scores(project, sources, replace(ask, table=table))
        found = find_scores(project, wanted)
        if found:
            _require_allowed(found.manifest, on_bad_rows)
            return found
        made = [find(chunk.folder(project)) for chunk in wanted.chunks]
        for output in made:
            if output:
                _require_allowed(output.manifest, on_bad_rows)
        missing = [chunk for chunk, output in zip(wanted.chunks, made, strict=True) if output is None]
        for output in _score(project, sources, ask, missing, plan=plan, say=say):
            done(output)
            _require_allowed(output.manifest, on_bad_rows)
    return publish_scores(project, wanted, ask)


def _score(
    project: Project, sources: Sources, ask: Ask, missing: Sequence[ChunkPlan], *, plan: str, say: Say
) -> Iterator[Output]:
    """Make and publish chunks; yields each."""
    features = project.settings.features.model_copy(update={"chunk_rows": project.settings.scoring.chunk_rows})
    project = replace(project, settings=project.settings.model_copy(update={"features": features}))
    run = _distributed if plan == "distributed" else _local
    for group in together(missing, _most_rows(project, plan)):
        with attempts(chunk.folder(project) for chunk in group) as begun:
            builds = [_build(group, chunk, attempt) for chunk, attempt in zip(group, begun, strict=True)]
            job = _job(project, sources, ask, group, builds)
            for build, written in run(project, job, say):
                chunk = group[builds.index(build)]
                place = {"file": chunk.chunk.file.name, "first_row": chunk.chunk.first, "rows": chunk.chunk.rows}
                yield commit(build.attempt, written | place | {"identity": chunk.identity})


def _job(project: Project, sources: Sources, ask: Ask, group: Sequence[ChunkPlan], builds: Sequence[Build]) -> ScoreJob:
    return ScoreJob(
        folder=str(project.folder),
        settings=project.settings,
        definitions=project.definitions.digest(),
        sources=sources,
        as_of=ask.as_of,
        builds=tuple(builds),
        asked={c.chunk.number: (c.chunk, c.snapshot) for c in group},
        version=ask.version,
        keep=ask.keep,
        table_rows=ask.table.rows,
    )


def _most_rows(project: Project, plan: str) -> int:
    """Rows that are scored together: of those that one process holds, few; else what scratch files may take."""
    if plan == "distributed":
        return project.settings.features.batch_rows
    return project.settings.scoring.chunk_rows * (_LOCAL_CHUNKS if looked_up(project) else 1)


def _build(group: Sequence[ChunkPlan], chunk: ChunkPlan, attempt: Path) -> Build:
    return Build(partition_of(group, chunk), {chunk.chunk.number: chunk.chunk.rows}, attempt)


def _local(project: Project, job: ScoreJob, say: Say) -> Iterator[tuple[Build, dict[str, Any]]]:
    """One process, a thread a core."""
    with computing("the rows to score"):
        rows = [job.chunks(project, build, build.chunks) for build in job.builds]
    computed, _ = features_looked_up(project, job, pl.concat(rows), say)
    at = 0
    for build, part in zip(job.builds, rows, strict=True):
        features = {view: frame.slice(at, part.height) for view, frame in computed.items()}
        [written] = job.write(project, build, part, features)
        yield build, written
        at += part.height


def _distributed(project: Project, job: ScoreJob, say: Say) -> Iterator[tuple[Build, dict[str, Any]]]:
    """Tasks of Ray Data."""
    from raypipe.features import plan_distributed  # imports Ray

    for build, [written], _ in plan_distributed.run(project, job, say):
        yield build, written


def _require_allowed(manifest: dict[str, Any], on_bad_rows: OnBadRows) -> None:
    """Raise DataContractError for rows of a chunk, or of all, that were set aside, if that is refused."""
    if not manifest["quarantined"] or on_bad_rows == "quarantine":
        return
    shown = ", ".join(map(str, manifest["first"]))
    more = " ..." if manifest["quarantined"] > len(manifest["first"]) else ""
    raise DataContractError(
        f"{manifest['quarantined']:,} of {manifest['rows']:,} rows break the request contract",
        where=f"{manifest['file']}, rows {shown}{more}",
        got="; ".join(f"{reason}: {count:,}" for reason, count in manifest["broken"].items()),
        expected="none",
        hint="mend the rows, or score the others: --on-bad-rows quarantine",
    )

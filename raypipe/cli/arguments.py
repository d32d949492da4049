"""What the commands share: the pipeline of a project, and arguments that were typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.errors import ConfigurationError
from raypipe.project import Project, load_project

if TYPE_CHECKING:
    from raypipe.pipeline.steps import Pipeline


@contextmanager
def pipeline_of(folder: Path, plan: str | None, as_of: str | None, port: int | None = None) -> Iterator[Pipeline]:
    if plan not in (None, "auto", "local", "distributed"):
        raise ConfigurationError("unknown plan", where="--plan", got=plan, expected="local, distributed or auto")
    known_at = moment(as_of, "--as-of")
    project = with_port(load_project(folder), port)
    if known_at:
        require_time(project, "--as-of")
    from raypipe.data.in_use import in_use
    from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
    from raypipe.pipeline.lineage_events import LineageEvents
    from raypipe.pipeline.progress import Progress
    from raypipe.pipeline.steps import Pipeline

    progress, lineage = Progress(), project.settings.lineage
    told = LineageEvents(project, lineage, progress.note) if lineage else nullcontext()
    with in_use(project.storage), ClusterOnDemand(progress) as cluster, told as events:
        yield Pipeline(project, progress, cluster, known_at, plan, events=events)


def moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            "not a time", where=option, got=text, expected="ISO 8601, as 2013-09-01 or 2013-09-01T12:00:00Z"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def require_time(project: Project, option: str) -> None:
    """Raise ConfigurationError for an option that speaks of time where the project has none."""
    if project.definitions.label.spine.static:
        spine = project.definitions.label.spine.name
        raise ConfigurationError("there is no time in this project", where=option, got=f"static source '{spine}'")


def with_port(project: Project, port: int | None) -> Project:
    if port is None:
        return project
    if not 1 <= port <= 65535:
        raise ConfigurationError("not a port", where="--port", got=port, expected="1 to 65535")
    serving = project.settings.serving.model_copy(update={"port": port})
    return Project(project.folder, project.settings.model_copy(update={"serving": serving}), project.definitions)


def read_request(path: Path) -> list[dict[str, Any]]:
    """The rows of a request file. Raises ConfigurationError that says what the file should hold."""
    try:
        document = json.loads(sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError("no such request file", where=str(path), got=error.strerror) from None
    except ValueError as error:
        raise ConfigurationError("a request file must hold JSON", where=str(path), got=error) from None
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows:
        raise ConfigurationError(
            "a request file must hold rows", where=str(path), expected='{"rows": [{"field": value, ...}]}'
        )
    return rows

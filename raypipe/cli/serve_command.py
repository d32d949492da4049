"""`raypipe serve`: the endpoint, which follows the ledger until it is interrupted."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from raypipe.cli.arguments import with_port
from raypipe.cli.output import Result
from raypipe.errors import ConfigurationError
from raypipe.project import Project, load_project
from raypipe.project.traffic_settings import Traffic


def serve(
    folder: Path,
    number: int | None,
    port: int | None,
    *,
    canaries: Sequence[str] = (),
    shadows: Sequence[str] = (),
    print_config: bool = False,
) -> Result:
    """canaries: as "4=0.1"; shadows: names of versions. Both come before project.yaml's."""
    from raypipe.cluster.connect import joins_a_cluster
    from raypipe.serving.resolve import resolve

    def load() -> Project:
        return with_traffic(with_port(load_project(folder), port), canaries, shadows)

    project = load()
    if print_config:
        import yaml

        from raypipe.serving.deploy import deploy_document

        document = deploy_document(project, resolve(project, number))
        return {"config": document}, yaml.safe_dump(document, sort_keys=False).rstrip()
    from raypipe.serving.ports import require_free

    if not joins_a_cluster():  # there, the endpoint that is found may be ours to go on with
        require_free(project.settings.serving.host, project.settings.serving.port)
    return _serve_until_interrupted(load, number)


def with_traffic(project: Project, canaries: Sequence[str], shadows: Sequence[str]) -> Project:
    """The project with canaries ("4=0.1") and shadows of the command line in place of its own, where some are given."""
    traffic = project.settings.serving.traffic
    given = traffic.model_dump() | ({"shadows": list(shadows)} if shadows else {})
    if canaries:
        given["canaries"] = dict(_canary(text) for text in canaries)
    try:
        changed = Traffic.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            "these versions cannot be served so",
            where="--canary, --shadow",
            got=first["msg"],
            expected="a version's number, previous or newest, as in --canary 4=0.1 --shadow newest; shares up to 1",
        ) from None
    serving = project.settings.serving.model_copy(update={"traffic": changed})
    return Project(project.folder, project.settings.model_copy(update={"serving": serving}), project.definitions)


def _canary(text: str) -> tuple[str, str]:
    version, equals, share = text.partition("=")
    if not equals:
        raise ConfigurationError("a canary needs a share", where="--canary", got=text, expected="as in --canary 4=0.1")
    return version, share


def _serve_until_interrupted(load: Callable[[], Project], number: int | None) -> Result:
    from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
    from raypipe.pipeline.progress import Progress
    from raypipe.serving.deploy import proxy_in_words, serving
    from raypipe.serving.follow import PERIOD_S, Follower, in_words
    from raypipe.serving.resolve import resolve

    progress, project = Progress(), load()
    target = resolve(project, number)
    with ClusterOnDemand(progress) as cluster:
        cluster.connect()
        with serving(project, target) as base, _signals() as caught:
            progress.note(f"{project.settings.name} at {base} behind {proxy_in_words()}: {in_words(target.rollout)}")
            progress.note(f"online values: {target.known}")
            progress.note("it follows what is promoted and rolled back; Ctrl-C ends it")
            follower = Follower(load, target, base, progress.note, number)
            while not caught:
                follower.look(time.monotonic())
                time.sleep(PERIOD_S)
    return {"version": follower.version, "url": base}, "ended"


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals to end that came since the block began: SIGTERM, and SIGINT where a shell has set it aside too."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda n, _: caught.append(n)) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

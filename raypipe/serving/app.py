"""The Serve application, for `serve deploy`, `serve run` and `raypipe serve` alike."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application

from raypipe.serving.replica import Replica

DEPLOYMENT = "replica"
IMPORT_PATH = "raypipe.serving.app:build"

# max_surge_percent: a code change starts its replicas before the old ones stop; by default a single replica leaves a
# gap of seconds.
deployment = serve.deployment(name=DEPLOYMENT, max_surge_percent=100)(Replica)


def build(args: dict[str, Any]) -> Application:
    """The application of a project: `project` names its folder; the champion is resolved here, at deploy time.

    Runs once, in the process that builds the application, never in a replica. With `resolved: true` the caller sets
    `user_config` itself in the deployment's options (`raypipe serve` does, so that an update needs no restart).
    """
    if args.get("resolved"):
        return deployment.bind()
    from raypipe.project import load_project
    from raypipe.serving.options import deployment_options
    from raypipe.serving.resolve import resolve

    project = load_project(args["project"])
    options = deployment_options(project.settings.serving)
    return deployment.options(user_config=resolve(project).user_config, **options).bind()

"""Deploy a target on Ray Serve, wait until it answers, change what it serves, and take it down again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raypipe.cluster.connect import ray_errors
from raypipe.cluster.settings import haproxy_available
from raypipe.errors import ClusterError
from raypipe.project import Project
from raypipe.serving.app import DEPLOYMENT, IMPORT_PATH
from raypipe.serving.client import answering_version
from raypipe.serving.cluster_apps import apply, controller, forget, require_place
from raypipe.serving.model import LoadedModel
from raypipe.serving.options import controller_options, deployment_options, grpc_options
from raypipe.serving.ports import close, require_free
from raypipe.serving.prediction_log.config import log_config
from raypipe.serving.prediction_log.flush import flush_waiting
from raypipe.serving.resolve import Target
from raypipe.serving.tls import trust

START_TIMEOUT_S = 120.0
FLUSH_TIMEOUT_S = 10.0


def deploy_document(project: Project, target: Target) -> dict[str, Any]:
    """The Serve configuration (as `serve deploy` takes it) that serves `target`."""
    serving = project.settings.serving
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": serving.host, "port": serving.port},
        "grpc_options": grpc_options(serving),
        "controller_options": controller_options(project),
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": project.settings.name,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": {"resolved": True},
                "deployments": [
                    {
                        "name": DEPLOYMENT,
                        "user_config": target.user_config,
                        **deployment_options(serving),
                    }
                ],
            }
        ],
    }


@contextmanager
def serving(project: Project, target: Target) -> Iterator[str]:
    """The endpoint while the block runs; yields its base URL. Needs a connection to a Ray cluster."""
    settings = project.settings.serving
    if controller() is None:
        for port in filter(None, (settings.port, settings.grpc_port)):
            require_free(settings.host, port)
    base = deploy(project, target)
    try:
        yield base
    finally:
        close(settings.port)
        forget(project.settings.name)
        if settings.log.enabled:
            flush_waiting(log_config(project), FLUSH_TIMEOUT_S)


def deploy(project: Project, target: Target) -> str:
    """Deploy `target` beside what runs; returns the base URL once its default version answers.

    Raises BundleError if a version cannot be loaded, ClusterError if another project has the cluster's endpoint or no
    replica starts; what served before goes on.
    """
    from ray import serve
    from ray.exceptions import RayError

    document, settings = deploy_document(project, target), project.settings.serving
    check_loads(target)
    try:
        serve.start(
            http_options=document["http_options"],
            grpc_options=document["grpc_options"],
            proxy_location=document["proxy_location"],
            controller_options=document["controller_options"],
        )
    except RayError as error:
        raise ClusterError("Ray Serve does not start", got=str(error).strip().splitlines()[-1]) from error
    require_place(project.settings.name, settings.host, settings.port)
    apply(document)
    base = settings.url
    _wait(project, base, str(target.version.version))
    return base


def update(project: Project, target: Target) -> None:
    """Make the endpoint serve `target`, of which `check_loads` has been asked; returns before it does. No replica
    restarts. Raises ClusterError if the cluster does not answer."""
    with ray_errors("changing what is served"):
        apply(deploy_document(project, target))


def check_loads(target: Target, before: Target | None = None) -> None:
    """Raise BundleError if a version of `target` that was not in `before` could not be loaded, before any replica is
    asked to."""
    known = before.user_config["versions"] if before else {}
    for name, pointer in target.user_config["versions"].items():
        if known.get(name) != pointer:
            LoadedModel(name, pointer, int(target.user_config["max_past_us"]))


def proxy_in_words() -> str:
    """Which proxy stands in front of the replicas on this machine."""
    return "HAProxy" if haproxy_available() else "Ray's own proxy (HAProxy's binary exists for x86-64 Linux only)"


def _wait(project: Project, base: str, version: str) -> None:
    """Until the version answers as the default one, or Serve says that it cannot start."""
    from ray import serve

    deadline, trusted = time.monotonic() + START_TIMEOUT_S, trust(project)
    while time.monotonic() < deadline:
        if answering_version(base, trusted) == version:
            return
        application = serve.status().applications.get(project.settings.name)
        reason = _reason(application) if application else None
        if application and (reason or application.status in ("DEPLOY_FAILED", "UNHEALTHY")):
            raise ClusterError(
                "the endpoint does not start",
                got=reason or application.message,
                hint="see the replica's log under /tmp/ray/session_latest/logs/serve",
            )
        time.sleep(0.1)
    raise ClusterError(f"the endpoint did not answer within {START_TIMEOUT_S:.0f} s", where=base)


def _reason(application: Any) -> str | None:
    """What a replica raised, as soon as the first one did: Serve itself would start it many times."""
    messages = [application.message, *(d.message for d in application.deployments.values())]
    lines = [line.strip() for message in messages for line in message.splitlines() if "Error" in line]
    return lines[-1] if lines else None

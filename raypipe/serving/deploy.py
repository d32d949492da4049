"""Deploy a target on Ray Serve, wait until it answers, and take it down again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raypipe.cluster.settings import haproxy_available
from raypipe.errors import ClusterError
from raypipe.project import Project
from raypipe.serving.app import DEPLOYMENT, IMPORT_PATH
from raypipe.serving.client import answering_version
from raypipe.serving.model import LoadedModel
from raypipe.serving.options import deployment_options
from raypipe.serving.ports import require_free
from raypipe.serving.prediction_log.config import log_config
from raypipe.serving.prediction_log.flush import flush_waiting
from raypipe.serving.resolve import Target

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
FLUSH_TIMEOUT_S = 10.0


def deploy_document(project: Project, target: Target) -> dict[str, Any]:
    """The Serve configuration (as `serve deploy` takes it) that serves `target`."""
    serving = project.settings.serving
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": serving.host, "port": serving.port},
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
    require_free(settings.host, settings.port)
    started = deploy(project, target)
    try:
        yield started
    finally:
        stop()
        if settings.log.enabled:
            flush_waiting(log_config(project), FLUSH_TIMEOUT_S)


def stop() -> None:
    """Take Serve down, its proxy and replicas drained, and wait until it is gone.

    `serve.shutdown` waits inside the controller, which dies meanwhile, and Ray reports that as an error.
    """
    import ray
    from ray import serve
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    deadline = time.monotonic() + STOP_TIMEOUT_S
    controller: Any = ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
    accepted: Any = controller.graceful_shutdown.remote(wait=False)
    ray.get(accepted)
    while time.monotonic() < deadline:
        try:
            ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
        except ValueError:
            break
        time.sleep(0.1)
    serve.shutdown()  # type: ignore[no-untyped-call]  # forgets the client of what is gone


def deploy(project: Project, target: Target) -> str:
    """Deploy `target` beside what runs; returns the base URL once the new version answers."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    document, settings = deploy_document(project, target), project.settings.serving
    check_loads(target)
    try:
        serve.start(http_options=document["http_options"], proxy_location=document["proxy_location"])
    except RayError as error:
        raise ClusterError("Ray Serve does not start", got=str(error).strip().splitlines()[-1]) from error
    client = _get_global_client()
    assert client is not None
    _require_our_port(client.http_config, settings.host, settings.port)
    client.deploy_apps(ServeDeploySchema.model_validate(document))
    base = f"http://{settings.host}:{settings.port}"
    _wait(project, base, str(target.version.version))
    return base


def _require_our_port(listening: Any, host: str, port: int) -> None:
    """Raise ClusterError where the cluster's Serve runs already and listens elsewhere: it would not move."""
    if (listening.host, listening.port) != (host, port):
        raise ClusterError(
            "the cluster has an endpoint already, at another address",
            where="project.yaml: serving.host, serving.port",
            got=f"{host}:{port}",
            expected=f"{listening.host}:{listening.port}",
            hint="serve there, or on another cluster (unset RAY_ADDRESS for a local one)",
        )


def check_loads(target: Target) -> None:
    """Raise BundleError if a version of `target` could not be loaded, before any replica is asked to."""
    for name, pointer in target.user_config["versions"].items():
        LoadedModel(name, pointer, int(target.user_config["max_past_us"]))


def proxy_in_words() -> str:
    """Which proxy stands in front of the replicas on this machine."""
    return "HAProxy" if haproxy_available() else "Ray's own proxy (HAProxy's binary exists for x86-64 Linux only)"


def _wait(project: Project, base: str, version: str) -> None:
    """Until the version answers, or Serve says that it cannot start."""
    from ray import serve

    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if answering_version(base, project.settings.name, version) == version:
            return
        application = serve.status().applications.get(project.settings.name)
        if application and application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ClusterError(
                "the endpoint does not start",
                got=_reason(application),
                hint="see the replica's log under /tmp/ray/session_latest/logs/serve",
            )
        time.sleep(0.1)
    raise ClusterError(f"the endpoint did not answer within {START_TIMEOUT_S:.0f} s", where=base)


def _reason(application: Any) -> str:
    messages = [application.message, *(d.message for d in application.deployments.values())]
    lines = [line.strip() for message in messages for line in message.splitlines() if "Error" in line]
    return lines[-1] if lines else "; ".join(m for m in messages if m)

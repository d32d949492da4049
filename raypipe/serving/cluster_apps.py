"""The applications of a cluster's Ray Serve: ours beside those of others.

Serve's configuration is declarative: an application that a configuration does not name is removed. Ours is put beside,
and taken from between, what others have deployed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from raypipe.errors import ClusterError

STOP_TIMEOUT_S = 60.0


def controller() -> Any | None:
    """The actor that manages the cluster's Serve, None where it does not run."""
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    try:
        return ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
    except ValueError:
        return None


def require_place(name: str, host: str, port: int) -> None:
    """Raise ClusterError where the cluster's endpoint listens elsewhere, or answers for another project."""
    details = _ask("get_serve_instance_details")
    listening = details["http_options"]["host"], details["http_options"]["port"]
    if listening != (host, port):
        raise ClusterError(
            "the cluster has an endpoint already, at another address",
            where="project.yaml: serving.host, serving.port",
            got=f"{host}:{port}",
            expected="{}:{}".format(*listening),
            hint="serve there, or on another cluster (unset RAY_ADDRESS for a local one)",
        )
    for other, application in details["applications"].items():
        if other != name and application["route_prefix"] == "/":
            raise ClusterError(
                "the cluster's endpoint answers for another project: a cluster serves one",
                where=f"{host}:{port}",
                got=other,
                expected=name,
                hint="end that one first (serve shutdown, or Ctrl-C in its `raypipe serve`), or use another cluster",
            )


def apply(document: dict[str, Any]) -> None:
    """Hand Serve a configuration, and let the applications that others deployed be as they are."""
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(document)
    schema.applications = [*_others({ours.name for ours in schema.applications}), *schema.applications]
    _ask("apply_config", schema)


def forget(name: str) -> None:
    """Take our application down, its replicas drained, and wait until it is gone: with Serve itself, unless other
    applications run."""
    from ray.serve.schema import ServeDeploySchema

    if set(_ask("get_serve_instance_details")["applications"]) - {name}:
        _ask("apply_config", ServeDeploySchema(applications=_others({name})))
        _until(lambda: name not in _ask("get_serve_instance_details")["applications"])
    else:
        _shut_down()


def _others(names: set[str]) -> list[Any]:
    """The configurations of applications that are not among `names`."""
    return [config for name, config in _ask("get_app_configs").items() if name not in names]


def _shut_down() -> None:
    """`serve.shutdown` waits inside the controller, which dies meanwhile, and Ray reports that as an error."""
    from ray import serve

    _ask("graceful_shutdown", wait=False)
    _until(lambda: controller() is None)
    serve.shutdown()  # type: ignore[no-untyped-call]  # forgets the client of what is gone


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not done() and time.monotonic() < deadline:
        time.sleep(0.1)


def _ask(method: str, *arguments: Any, **named: Any) -> Any:
    """What the controller's method returns. Raises ClusterError if it cannot be reached."""
    import ray

    actor = controller()
    if actor is None:
        raise ClusterError("Ray Serve does not run on this cluster", hint="raypipe serve starts it")
    return ray.get(getattr(actor, method).remote(*arguments, **named))

"""From project.yaml's `serving` to what Ray Serve and a replica are told. Control plane only."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from raypipe.definitions.durations import microseconds
from raypipe.errors import ConfigurationError
from raypipe.project import Project
from raypipe.project.endpoint_settings import Autoscaling
from raypipe.project.settings import Serving
from raypipe.serving import tls
from raypipe.serving.access import ADMINS_VARIABLE, CALLERS_VARIABLE, Access, read_digests
from raypipe.serving.v2_grpc.ingress import SERVICER_FUNCTION

METRICS_INTERVAL_S = 0.5
HAPROXY_LIMIT = 100  # requests at a time that HAProxy gives a replica, where it is told nothing else


def grpc_options(serving: Serving) -> dict[str, Any]:
    """What Serve's gRPC ingress is started with; nothing where there is none."""
    if serving.grpc_port is None:
        return {}
    return {"port": serving.grpc_port, "grpc_servicer_functions": [SERVICER_FUNCTION], "enable_reflection": False}


def controller_options(project: Project) -> dict[str, Any]:
    """Of Serve's controller, whose environment HAProxy is started in (raypipe/cluster/haproxy_on_loopback.sh). Raises
    ConfigurationError as raypipe.serving.tls.certificate."""
    told, limit = tls.variables(project), project.settings.serving.max_ongoing_requests
    if limit > HAPROXY_LIMIT:
        told["RAYPIPE_MAX_ONGOING"] = str(limit)
    return {"runtime_env": {"env_vars": told}} if told else {}


def deployment_options(serving: Serving) -> dict[str, Any]:
    """Options of the Serve deployment. All are changed in a running endpoint without a restart, but replica_cpus."""
    scale = serving.autoscaling
    count = {"num_replicas": serving.replicas} if scale is None else {"autoscaling_config": _autoscaling(scale)}
    return count | {
        "max_ongoing_requests": serving.max_ongoing_requests,
        "ray_actor_options": {"num_cpus": serving.replica_cpus},
    }


def _autoscaling(scale: Autoscaling) -> dict[str, Any]:
    return {
        "min_replicas": scale.min_replicas,
        "max_replicas": scale.max_replicas,
        "target_ongoing_requests": scale.target_ongoing_requests,
        "upscale_delay_s": _seconds(scale.upscale_delay),
        "downscale_delay_s": _seconds(scale.downscale_delay),
        "look_back_period_s": _seconds(scale.look_back),
        # How often replicas tell of their load: 10 s by default. Deprecated for an environment variable that Ray 2.60
        # does not read yet.
        "metrics_interval_s": min(METRICS_INTERVAL_S, _seconds(scale.look_back) / 4),
    }


def limits(serving: Serving) -> dict[str, Any]:
    """`limits` of user_config."""
    return {
        "max_rows": serving.max_rows,
        "max_body_bytes": serving.max_body_bytes,
        "max_bulk_rows": serving.max_bulk_rows,
        "max_bulk_bytes": serving.max_bulk_bytes,
        "max_explained_rows": serving.max_explained_rows,
        "max_ongoing": serving.max_ongoing_requests,
        "max_queued": serving.max_queued_requests,
        "timeout_s": None if serving.request_timeout is None else _seconds(serving.request_timeout),
    }


def access(project: Project) -> Access:
    """The keys' digests. Raises ConfigurationError for an endpoint that would be open to a network without keys."""
    serving, folder = project.settings.serving, project.folder
    files = (serving.access.keys_file, serving.access.admin_keys_file)
    callers, admins = (
        read_digests(variable, folder / name if name else None)
        for variable, name in zip((CALLERS_VARIABLE, ADMINS_VARIABLE), files, strict=True)
    )
    if not callers and not _loopback(serving.host):
        raise ConfigurationError(
            "the endpoint would answer everybody on the network",
            where="project.yaml: serving.host", got=f"{serving.host}, and no API keys",
            expected=f"keys in {CALLERS_VARIABLE} or serving.access.keys_file, or a loopback address",
        )  # fmt: skip
    return Access(callers, admins)


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seconds(duration: str) -> float:
    return microseconds(duration, where="project.yaml: serving") / 1e6

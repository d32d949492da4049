"""All replicas' facts, asked for by the one that an admin's call reached: over HTTP, at the ports that HAProxy uses."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from raypipe.errors import ClusterError

PATH = "/admin/replica"
TIMEOUT_S = 5.0
logger = logging.getLogger("ray.serve")


def all_facts(own: Mapping[str, Any], headers: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """The facts of every replica of the application, `own` among them. Blocks: not for the event loop.

    headers: the admin call's own, whose key the other replicas ask for too. A replica that does not answer (it may just
    be starting or ending) is left out, with a line in the log. Raises ClusterError where Serve's controller is gone.
    """
    context = serve.get_replica_context()
    here = context.replica_id.unique_id
    key = {name: headers[name] for name in ("authorization", "x-api-key") if name in headers}
    urls = [url for name, url in _replicas(context.app_name) if name != here]
    with ThreadPoolExecutor(max_workers=8) as threads:
        found = list(threads.map(lambda url: _ask(url, key), urls))
    return [own, *(facts for facts in found if facts is not None)]


def _replicas(application: str) -> list[tuple[str, str]]:
    """The unique id of each replica that HAProxy sends requests to, and where it listens."""
    try:
        controller: Any = ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
        pending: Any = controller.get_target_groups.remote(application, from_proxy_manager=True)
        groups: Any = ray.get(pending, timeout=TIMEOUT_S)
    except (ValueError, ray.exceptions.RayError) as error:
        raise ClusterError("Serve's controller does not answer", got=error, hint="it restarts by itself") from None
    targets = [target for group in groups if group.protocol == "HTTP" for target in group.targets]
    return [
        (target.name.rsplit("#", 1)[-1], f"http://{_host(target.ip)}:{target.port}{PATH}")
        for target in targets
        if target.name.startswith("SERVE_REPLICA::")
    ]


def _host(ip: str) -> str:
    """Where a replica at this address of its machine listens: on our own, it may be on loopback alone, where HAProxy
    asks it, too."""
    own = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return "127.0.0.1" if ip == own else ip


def _ask(url: str, headers: Mapping[str, str]) -> Mapping[str, Any] | None:
    try:
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 (Serve's own address)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            facts: dict[str, Any] = json.load(response)
            return facts
    except (OSError, ValueError) as error:
        logger.warning("a replica does not tell its facts: %s: %s", url, error)
        return None

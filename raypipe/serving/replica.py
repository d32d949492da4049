"""The Ray Serve deployment: one process that holds the live versions of a model and answers HTTP.

Never imports the registry's client: a replica is given URIs and digests.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

import raypipe.training.lean_xgboost  # noqa: F401 (ahead of what imports XGBoost as it is)
from raypipe.errors import NotFoundError, RaypipeError
from raypipe.serving import peers
from raypipe.serving.access import is_admin
from raypipe.serving.asgi import Message, Receive, Scope, Send
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.done import count_in
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.ingress import answer_with
from raypipe.serving.live import Change, LiveVersions, load
from raypipe.serving.prediction_log.log import PredictionLog, log_for
from raypipe.serving.ray_private import logs_folder
from raypipe.serving.record import Served
from raypipe.serving.request_path import RequestPath
from raypipe.serving.routes import allow, answer
from raypipe.serving.shadow import Shadows
from raypipe.serving.telemetry import Telemetry, telemetry_for
from raypipe.serving.together import Steps
from raypipe.serving.v2_grpc.ingress import Rpcs

logger = logging.getLogger("ray.serve")

ALL, OWN = "/admin/status", peers.PATH
REFUSED_HEADER = "x-raypipe-proxy-refused"  # raypipe/cluster/haproxy_overload.cfg
_SWITCH_S = 0.0005  # for how long a thread that keeps a log may hold a request up; Python's own interval is 5 ms


class Replica(Rpcs):
    """Configured by `user_config`: model name, versions (bundle URI, digest, online state), traffic, limits, access,
    prediction log, telemetry."""

    def __init__(self) -> None:
        sys.setswitchinterval(_SWITCH_S)
        self._endpoint: Endpoint | None = None
        self._live = LiveVersions()
        self._taking: asyncio.Task[None] | None = None
        self._log: PredictionLog | None = None
        self._telemetry: Telemetry | None = None
        self._name = serve.get_replica_context().replica_id.unique_id
        self._path = RequestPath(lambda: self._endpoint, self._answer)
        self._shadows = Shadows(lambda: self._endpoint, self._keep)
        self._path.prediction_observers = (self._shadows,)
        answer_with(self._path.handle)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Load what is new beside what serves, then swap; returns at once where something serves already.

        A failed load is logged and leaves the old versions serving; only a replica that has none yet raises, since Ray
        ends a replica whose configuration raises.
        """
        change = self._live.begin(user_config)
        if self._endpoint is None:
            await self._take(change)
        else:
            self._taking = asyncio.create_task(self._take_beside(change))

    async def _take(self, change: Change) -> None:
        """Swap the endpoint of a change in once its versions are loaded, unless a later change was faster."""
        loaded = await asyncio.to_thread(load, change) if change.missing else {}
        endpoint = self._live.finish(change, loaded)
        if endpoint is not None:
            if self._endpoint is None:
                gc.freeze()  # what stays is left out of collections: through all of it, one holds requests up for 0.2 s
            before = (self._log, self._telemetry)
            self._observe(change.config, endpoint)
            self._endpoint = endpoint
            for old, new in zip(before, (self._log, self._telemetry), strict=True):
                if old is not None and old is not new:
                    await asyncio.to_thread(old.close)

    def _observe(self, config: Mapping[str, Any], endpoint: Endpoint) -> None:
        """Have predictions and requests kept and told of as the configuration says."""
        self._log = log_for(self._log, config["log"], endpoint.versions, self._name)
        folder = Path(logs_folder()) / f"access-{endpoint.model}-{self._name}"
        self._telemetry = telemetry_for(
            self._telemetry, config["telemetry"], endpoint.model, self._name, folder, self._gauges
        )
        self._path.request_observers = (self._telemetry,)

    async def _take_beside(self, change: Change) -> None:
        try:
            await self._take(change)
        except RaypipeError as error:
            logger.warning("the old versions go on serving, since the new default cannot be loaded: %s", error)

    async def __del__(self) -> None:
        """Serve awaits this when it ends the replica, after its last request."""
        for part in (self._telemetry, self._log):
            if part is not None:
                await asyncio.to_thread(part.close)

    async def __call__(self, _: Request) -> Response:
        """Where Ray's own path carries a request: through its proxy, where there is no HAProxy."""
        return _Answer(self._path)

    async def reply_to(self, call: Call, receive: Receive) -> Reply:
        """Answer a call that Ray's gRPC server carries."""
        return await self._path.reply_to(call, receive)

    def _answer(self, endpoint: Endpoint, call: Call) -> Steps:
        if is_admin(call.path):
            return self._admin(call)
        reply = yield from answer(endpoint, call)
        if reply.served is not None:
            self._keep(reply.served)
        return reply

    def _keep(self, served: Served) -> None:
        """Into the prediction log, before anyone is told of it; a large request's in the thread that works on it."""
        if self._log is not None:
            self._log.observe(served)

    # ---- what an admin may know ----------------------------------------------------------------

    def _admin(self, call: Call) -> Reply:
        """Of all replicas, or of this one; blocks while the others are asked."""
        if call.path not in (ALL, OWN):
            raise NotFoundError(f"no route {call.path[:200]}", expected=ALL)
        allow(call, "GET")
        own = self.facts()
        if call.path == OWN:
            return json_reply(200, own)
        refused = count_in(call.headers, REFUSED_HEADER) or 0
        return json_reply(200, {"refused_by_proxy": refused, "replicas": peers.all_facts(own, call.headers)})

    def facts(self) -> dict[str, Any]:
        """What this replica holds and has done; `versions` as LiveVersions.loads, `requests` as Metrics.facts."""
        endpoint, telemetry = self._endpoint, self._telemetry
        assert endpoint is not None, "a request is answered by an endpoint"
        assert telemetry is not None
        traffic = endpoint.traffic
        return {
            "replica": self._name,
            "pid": os.getpid(),
            "model": endpoint.model,
            "traffic": {"default": traffic.default, "weights": traffic.weights, "shadows": list(traffic.shadows)},
            "versions": self._live.loads(),
            "predictors": {name: model.facts["predictor"] for name, model in endpoint.versions.items()},
            "gauges": self._gauges(),
            "requests": telemetry.facts(),
        }

    def _gauges(self) -> dict[str, float]:
        admission = self._path.admission
        found: dict[str, float] = {
            "ongoing": admission.ongoing,
            "queued": admission.queued,
            "refused": admission.refused,
            "batches": self._path.turns.batches,
            "batched_requests": self._path.turns.requests,
            **{f"shadow_{name}": count for name, count in self._shadows.counts().items()},
        }
        if self._log is not None:
            found |= self._log.gauges()
        return found


class _Answer(Response):
    """What Ray awaits as an ASGI application, with the request's own scope."""

    def __init__(self, path: RequestPath) -> None:
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def without_id(message: Message) -> None:
            """Ray's own middleware names the request in the answer."""
            headers = [header for header in message.get("headers", []) if header[0] != b"x-request-id"]
            await send(message if "headers" not in message else {**message, "headers": headers})

        await self._path.handle(scope, receive, without_id)

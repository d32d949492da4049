"""The protocol's RPCs at Ray Serve's gRPC ingress: what they are called by, and what becomes of their answers.

Serve calls the deployment's method of an RPC's name. Requests and responses pass through it as bytes, so that a request
which is no message is refused in the protocol's words too.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

import grpc
import orjson

from raypipe.serving.asgi import Message, Receive, identity
from raypipe.serving.call import Call, Reply
from raypipe.serving.v2_errors import in_words
from raypipe.serving.v2_grpc.messages import RPCS, SERVICE

SERVICER_FUNCTION = "raypipe.serving.v2_grpc.ingress:add_to_server"
# The path of the REST route that answers alike, by which keys are asked for and metrics are told apart.
_ROUTES = {"ServerLive": "/v2/health/live", "ServerReady": "/v2/health/ready", "ModelInfer": "/v2/infer"}
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def add_to_server(servicer: Any, server: Any) -> None:
    """What generated code calls `add_GRPCInferenceServiceServicer_to_server`, for Serve's `grpc_servicer_functions`."""
    handlers = {rpc: grpc.unary_unary_rpc_method_handler(getattr(servicer, rpc)) for rpc in RPCS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class Serialized:
    """A response message in its bytes, as Serve asks for it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def SerializeToString(self) -> bytes:  # noqa: N802 (protobuf's name)
        return self._body


class Answers(Protocol):
    """What the deployment does with a call of any protocol."""

    async def reply_to(self, call: Call, receive: Receive) -> Reply: ...


class Rpcs:
    """The RPCs as methods of the deployment, which answers them as it answers HTTP."""

    async def ServerLive(self: Answers, request: bytes, grpc_context: Any) -> Serialized:  # noqa: N802 (the protocol's)
        return await _answer(self, "ServerLive", request, grpc_context)

    async def ServerReady(self: Answers, request: bytes, grpc_context: Any) -> Serialized:  # noqa: N802
        return await _answer(self, "ServerReady", request, grpc_context)

    async def ModelReady(self: Answers, request: bytes, grpc_context: Any) -> Serialized:  # noqa: N802
        return await _answer(self, "ModelReady", request, grpc_context)

    async def ServerMetadata(self: Answers, request: bytes, grpc_context: Any) -> Serialized:  # noqa: N802
        return await _answer(self, "ServerMetadata", request, grpc_context)

    async def ModelMetadata(self: Answers, request: bytes, grpc_context: Any) -> Serialized:  # noqa: N802
        return await _answer(self, "ModelMetadata", request, grpc_context)

    async def ModelInfer(self: Answers, request: bytes, grpc_context: Any) -> Serialized:  # noqa: N802
        return await _answer(self, "ModelInfer", request, grpc_context)


async def _answer(deployment: Answers, rpc: str, request: bytes, context: Any) -> Serialized:
    metadata = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
    call = Call(rpc, _ROUTES.get(rpc, "/v2"), "", metadata, b"", identity(metadata), time.time_ns() // 1000)
    reply = await deployment.reply_to(call, _body(request))
    if reply.status != 200:
        context.set_code(_CODES.get(reply.status, grpc.StatusCode.INTERNAL))
        context.set_details(in_words(orjson.loads(reply.body)))
        return Serialized(b"")
    context.set_trailing_metadata([("x-request-id", call.id), ("x-model-version", reply.version or "")])
    return Serialized(reply.body)


def _body(request: bytes) -> Receive:
    """The request as ASGI has it: the whole body, then nothing more until the work is done."""
    parts = [request]

    async def receive() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop()}
        await asyncio.Event().wait()
        raise AssertionError

    return receive

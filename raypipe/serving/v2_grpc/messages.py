"""The protocol's messages, from the compiled inference.proto.

They live in a pool of their own: a client's generated code (tritonclient's, kserve's) defines messages of the same full
names, and a process that had both in the default pool could not import the second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE = "inference.GRPCInferenceService"
RPCS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
COMPILED = Path(__file__).with_name("inference.binpb")


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(COMPILED.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()
_CLASSES = {
    name: GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))
    for rpc in RPCS
    for name in (f"{rpc}Request", f"{rpc}Response")
}


def request(rpc: str, body: bytes) -> Any:
    """The request message of an RPC. Raises DecodeError for bytes that are none."""
    return _CLASSES[f"{rpc}Request"].FromString(body)


def response(rpc: str, **fields: Any) -> Any:
    """A response message of an RPC."""
    return _CLASSES[f"{rpc}Response"](**fields)

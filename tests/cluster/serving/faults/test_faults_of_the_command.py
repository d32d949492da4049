"""`raypipe serve` is killed, or ended under load; and an endpoint of one replica loses it. One that speaks TLS does so
over gRPC, too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from raypipe.cluster.settings import haproxy_available
from raypipe.project import load_project
from tests.cluster.serving.faults.conftest import Served, serve
from tests.conftest import a_free_port, edit_settings

DEFINED = ("500", "503", "429")  # of an endpoint without a replica
AT_THE_END = {"RemoteDisconnected", "ConnectionResetError", "ConnectionRefusedError", "BrokenPipeError"}


KEY = "a-key-that-callers-show"
needs_haproxy = pytest.mark.skipif(not haproxy_available(), reason="HAProxy's binary exists for x86-64 Linux only")


@pytest.fixture(scope="module")
def folder(versions):
    return versions(serving__replicas=1, serving__replica_cpus=0.4, serving__grpc_port=a_free_port())


@pytest.fixture(scope="module")
def secured(folder, tmp_path_factory) -> Path:
    """The project with API keys and, where it can be, a certificate that only its owner vouches for."""
    own = tmp_path_factory.mktemp("secured") / "project"
    shutil.copytree(folder, own)
    if haproxy_available():
        edit_settings(own, serving__tls={"certificate": "certificate.pem", "key": "key.pem"})
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", own / "key.pem", "-out", own / "certificate.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    return own


@pytest.fixture(scope="module")
def port() -> int:
    return a_free_port()


@pytest.fixture(scope="module")
def first(secured, port, environment, ray_folder) -> Iterator[Served]:
    """The endpoint of the secured project, which is killed in the end."""
    with serve(secured, port, environment, ray_folder / "h", key=KEY) as served:
        yield served


@pytest.fixture(scope="module")
def again(first, folder, port, environment, ray_folder) -> Iterator[SimpleNamespace]:
    """An endpoint at the ports of the first, whose command was killed; the score of that, and when this one began."""
    score = first.score("1")
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    began = time.monotonic()
    with serve(folder, port, environment, ray_folder / "i") as served:
        yield SimpleNamespace(served=served, score=score, seconds=time.monotonic() - began)


@pytest.fixture
def grpc_address(secured) -> str:
    return f"127.0.0.1:{load_project(secured).settings.serving.grpc_port}"


# ---- over TLS ----------------------------------------------------------------------------------


@needs_haproxy
def test_grpc_over_tls(first, secured, grpc_address):
    """A client that trusts the certificate is answered as over HTTPS, if it has a key."""
    row, headers = first.row, {"authorization": f"Bearer {KEY}"}
    certificate = str(secured / "certificate.pem")
    with triton.InferenceServerClient(grpc_address, ssl=True, root_certificates=certificate) as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="an API key is needed") as refused:
            client.get_model_metadata(first.model)
        assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
        inputs = []
        for told in client.get_model_metadata(first.model, headers=headers).inputs:
            inputs.append(triton.InferInput(told.name, [1], told.datatype))
            inputs[-1].set_data_from_numpy(np.array([row[told.name]], triton_to_np_dtype(told.datatype)))
        got = client.infer(first.model, inputs, headers=headers)
    assert got.as_numpy("probability").tolist() == [first.score("1")]


@needs_haproxy
def test_grpc_in_plain_text_is_refused_where_there_is_tls(first, grpc_address):
    with grpc.insecure_channel(grpc_address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=20)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


# ---- killed and ended --------------------------------------------------------------------------


def test_started_again_after_the_command_was_killed(again, capsys):
    """The ports are free, or held by a process that is known to be an orphan and waited for."""
    assert again.served.score("1") == again.score
    with capsys.disabled():
        print(f"\nraypipe serve killed and started again: serves after {again.seconds:.1f} s")


def test_the_only_replica_killed_and_then_the_command_ended(again, wait, capsys):
    """Without a replica callers are told so until there is one; ending the command fails no request that it took."""
    served, scores = again.served, {"1": again.score}
    with served.load(scores) as load:
        wait(lambda: load.good_since(0) > 100, what="answers")
        [pid] = served.pids("ray::ServeReplica")
        died = time.time()
        os.kill(pid, signal.SIGKILL)
        wait(lambda: served.pids("ray::ServeReplica") - {pid}, what="a new replica", seconds=120)
        wait(lambda: load.good_since(died) > 300, what="answers of it", seconds=120)
    told = load.failures()
    with capsys.disabled():
        print(f"\nkill -9 of the only replica: {load.figures()}")
    assert all(failure.startswith(DEFINED) or failure in AT_THE_END for failure in told), told

    with served.load(scores) as load:
        wait(lambda: load.good_since(0) > 100, what="answers")
        served.process.send_signal(signal.SIGTERM)
        served.process.wait(120)
    with capsys.disabled():
        print(f"\nSIGTERM to raypipe serve: {load.figures()}")
    assert set(load.failures()) <= {"ConnectionRefusedError"}, "a request that was taken was not answered"

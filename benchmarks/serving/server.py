"""A server of one side while a block runs: started, ready, watched, ended with all that it started."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measure import environment
from processes import MARK, Tree

from serving.options import Options
from serving.protocols import Protocol
from serving.sides import Side
from serving.workload import TOLERANCE, Requests

READY_WITHIN_S = 180.0
ENDED_WITHIN_S = 60.0
ANSWER_WITHIN_S = 30.0


class ServerError(Exception):
    """A server does not start, ends by itself or does not answer; the message has the end of its log."""


@dataclass(frozen=True)
class Server:
    """A server that answers; `started_s`: from its command to its first right answer."""

    port: int
    tree: Tree
    started_s: float


@contextmanager
def served(side: Side, folder: Path, options: Options, requests: Requests) -> Iterator[Server]:
    """Start a side's server, wait for a right answer, and end it with all that it started."""
    tree, port, log = Tree(), free_port(), folder / f"{side.name}.log"
    assert side.start, f"{side.title} is no server"
    command = side.start(folder, port, options)
    began = time.monotonic()
    marked = environment() | {MARK: tree.mark}
    with log.open("w") as written:
        root = subprocess.Popen(command, stdout=written, stderr=written, env=marked, cwd=folder)
    try:
        _wait_until_ready(root, port, side.protocol, requests, log)
        yield Server(port, tree, round(time.monotonic() - began, 1))
    finally:
        root.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            root.wait(ENDED_WITHIN_S)
        tree.end()
        root.wait()


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(
    root: subprocess.Popen[bytes], port: int, protocol: Protocol, requests: Requests, log: Path
) -> None:
    deadline, last = time.monotonic() + READY_WITHIN_S, ""
    while time.monotonic() < deadline and root.poll() is None:
        try:
            if wrong_answers(port, protocol, requests, first=1) == 0:
                return
            last = "it answers, with other probabilities"
        except ServerError as error:
            last = str(error)
        time.sleep(0.2)
    ended = "" if root.returncode is None else f"it ended with {root.returncode}; "
    raise ServerError(f"not ready: {ended}{last}\n{log.read_text(errors='replace')[-2000:]}")


def wrong_answers(port: int, protocol: Protocol, requests: Requests, first: int | None = None) -> int:
    """Every request (or the `first` ones) once: how many probabilities are not those computed in process.

    Raises ServerError for no answer, and for another status than 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN_S)
    try:
        wrong = 0
        for asked, expected in zip(requests.asked[:first], requests.expected[:first], strict=True):
            headers = {"content-type": protocol.media_type, "accept": protocol.media_type}
            connection.request("POST", protocol.path, protocol.body(asked), headers)
            reply = connection.getresponse()
            document = reply.read()
            if reply.status != 200:
                raise ServerError(f"status {reply.status}: {document[:300]!r}")
            found = np.asarray(protocol.probabilities(document), float).ravel()
            wrong += int((~np.isclose(found, expected, rtol=0, atol=TOLERANCE)).sum())
        return wrong
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"no answer: {error!r}") from error
    finally:
        connection.close()

"""Load: replicas come and go with it, and a replica that goes loses no request."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import replace
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from raypipe.project.endpoint_settings import Autoscaling
from raypipe.serving.app import DEPLOYMENT
from raypipe.serving.deploy import deploy

PREDICT = "/models/flights-late/predict"


def replicas() -> Counter[str]:
    """Replicas by state; none while the deployment is looked at anew."""
    from ray import serve

    deployment = serve.status().applications["flights-late"].deployments.get(DEPLOYMENT)
    return Counter(deployment.replica_states if deployment else {})


def settled() -> bool:
    """Whether one replica runs and no other is to come: that of the settings before may run beside its successor."""
    from ray import serve

    deployment = serve.status().applications["flights-late"].deployments.get(DEPLOYMENT)
    return deployment is not None and deployment.status == "HEALTHY" and replicas() == {"RUNNING": 1}


@pytest.fixture
def scaled(flights, target, endpoint):
    """One or two replicas, by the load; afterwards one."""
    scale = Autoscaling(
        min_replicas=1,
        max_replicas=2,
        target_ongoing_requests=1,
        upscale_delay="1s",
        downscale_delay="2s",
        look_back="2s",
    )
    settings = flights.project.settings
    serving = settings.serving.model_copy(update={"autoscaling": scale, "replica_cpus": 0.5})
    deploy(replace(flights.project, settings=settings.model_copy(update={"serving": serving})), target)
    yield
    deploy(flights.project, target)


def test_replicas_follow_the_load_and_no_request_is_lost(scaled, call, flight, wait):
    answers, heavy, stop = Counter[int](), threading.Event(), threading.Event()

    def ask(rows: int, until: threading.Event) -> None:
        while not until.is_set():
            answers[call("POST", PREDICT, {"rows": [flight] * rows}).status] += 1

    wait(settled, what="one replica", seconds=120)
    time.sleep(2)  # what is there for longer than it takes to begin an update is not about to be replaced
    assert settled()
    threads = [threading.Thread(target=ask, args=(200, heavy)) for _ in range(3)]
    threads.append(threading.Thread(target=ask, args=(1, stop)))
    for thread in threads:
        thread.start()
    began = time.monotonic()
    try:
        wait(lambda: replicas().total() == 2, what="a second replica that starts", seconds=120)
        asked = time.monotonic()
        wait(lambda: replicas()["RUNNING"] == 2, what="a second replica under load", seconds=120)
        grown = time.monotonic()
        heavy.set()
        wait(lambda: replicas() == {"RUNNING": 1}, what="the floor after the load", seconds=120)
        print(
            f"a second replica is started after {asked - began:.1f} s of load, answers {grown - asked:.1f} s later, "
            f"and is gone {time.monotonic() - grown:.1f} s after the load"
        )
    finally:
        heavy.set()
        stop.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {200}, answers


def test_the_replica_answers_in_front_of_rays_path(endpoint):
    """Ray's own middleware would hand an id of any length back."""
    with closing(HTTPConnection(endpoint.removeprefix("http://"), timeout=30)) as connection:
        connection.request("GET", "/v2", headers={"x-request-id": "x" * 300})
        response = connection.getresponse()
        response.read()
    assert [len(found) for found in response.headers.get_all("x-request-id")] == [32]


def test_what_is_over_the_limit_is_refused_in_front_of_the_replica(endpoint, flight):
    """A replica takes 100 requests at a time; of 400 that come at once some are answered, and each other one is told."""
    where = urlsplit(endpoint)
    body = json.dumps({"rows": [flight]}).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with ExitStack() as stack:
        callers = [
            stack.enter_context(socket.create_connection((where.hostname, where.port), timeout=60)) for _ in range(400)
        ]
        for caller in callers:
            caller.sendall(head + body)
        answers = [b"".join(iter(lambda c=caller: c.recv(65536), b"")) for caller in callers]
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
    assert len(refused) + sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) == 400
    assert 0 < len(refused) <= 300
    for answer in refused:
        assert b"\r\nretry-after: 1\r\n" in answer
        told = json.loads(answer.partition(b"\r\n\r\n")[2])  # a replica would say its limit, too
        assert told == {"error": "OverloadedError", "what": "too many requests at a time", "hint": "try again later"}
    with closing(HTTPConnection(where.netloc, timeout=30)) as connection:
        connection.request("POST", PREDICT, body)
        assert connection.getresponse().status == 200

"""Load: replicas come and go with it, and a replica that goes loses no request."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection

import pytest

from raypipe.project.endpoint_settings import Autoscaling
from raypipe.serving.app import DEPLOYMENT
from raypipe.serving.deploy import deploy

PREDICT = "/models/flights-late/predict"


def replicas() -> Counter[str]:
    """Replicas by state."""
    from ray import serve

    return Counter(serve.status().applications["flights-late"].deployments[DEPLOYMENT].replica_states)


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

    wait(lambda: replicas() == {"RUNNING": 1}, what="one replica", seconds=120)
    threads = [threading.Thread(target=ask, args=(200, heavy)) for _ in range(6)]
    threads.append(threading.Thread(target=ask, args=(1, stop)))
    for thread in threads:
        thread.start()
    try:
        wait(lambda: replicas()["RUNNING"] == 2, what="a second replica under load", seconds=120)
        heavy.set()
        wait(lambda: replicas() == {"RUNNING": 1}, what="the floor after the load", seconds=120)
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

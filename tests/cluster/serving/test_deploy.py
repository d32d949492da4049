"""New versions beside the old one: without a lost request, and never a broken one in its place."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlparse

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from ray.util.state import list_actors

from raypipe.errors import ClusterError, RaypipeError
from raypipe.serving.deploy import deploy
from tests.cluster.serving.faults.load import Load

PREDICT = "/models/flights-late/predict"
CONFIG = Path(__file__).parents[3] / "serve" / "config.yaml"


@pytest.fixture
def restored(flights, target, endpoint):
    """Serve the champion again afterwards."""
    yield
    deploy(flights.project, target)


@pytest.fixture
def load(endpoint, call, flight, wait) -> Iterator[Load]:
    """Six clients, whose every score is checked."""
    score = call("POST", PREDICT, {"rows": [flight]}).json["predictions"][0]["probability"]
    with Load(endpoint, "flights-late", flight, {"1": score}) as load:
        wait(lambda: load.good_since(0) > 100, what="answers")
        yield load


@pytest.fixture
def answers(call, flight):
    """(status, version) of every answer to requests that are sent all the while."""
    seen, done = [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                answer = call("POST", PREDICT, {"rows": [flight]})
                seen.append((answer.status, answer.version))
            except OSError as error:
                seen.append((type(error).__name__, None))
            time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    yield seen
    done.set()
    thread.join()


def named(target, number: int, **changes):
    """`target` under another version number; `changes` to its pointer."""
    config = copy.deepcopy(target.user_config)
    [pointer] = config["versions"].values()
    config |= {"versions": {str(number): pointer | changes}, "traffic": {"default": str(number), "weights": {}}}
    return replace(target, version=replace(target.version, version=number), user_config=config)


@pytest.fixture
def replicas(cluster):
    """The processes of the endpoint's replicas."""

    def pids() -> set[int]:
        actors = list_actors(cluster.address, filters=[("state", "=", "ALIVE")])
        return {actor.pid for actor in actors if actor.class_name == "ServeReplica:flights-late:replica"}

    return pids


def test_a_new_version_takes_over_without_a_lost_request(flights, target, answers, restored, replicas, wait):
    before = replicas()
    deploy(flights.project, named(target, 2))
    wait(lambda: answers[-1:] == [(200, "2")], what="an answer of version 2")
    assert set(answers) == {(200, "1"), (200, "2")}
    assert answers == sorted(answers), "version 1 answered after version 2 had"
    assert replicas() == before, "a replica was restarted"


def test_new_replicas_take_over_without_a_lost_request(flights, target, load, restored, replicas, wait, capsys):
    """Other CPUs of a replica are a code change to Serve: the old one leaves when a new one answers, there and back."""
    settings = flights.project.settings
    serving = settings.serving.model_copy(update={"replica_cpus": settings.serving.replica_cpus / 2})
    changed = replace(flights.project, settings=settings.model_copy(update={"serving": serving}))
    for project in (changed, flights.project):
        before = replicas()
        deploy(project, target)
        wait(lambda old=before: replicas() - old and not replicas() & old, what="new replicas alone", seconds=120)
        alone = time.time()
        wait(lambda since=alone: load.good_since(since) > 200, what="answers of them")
    with capsys.disabled():
        print(f"\ntwo code changes: {load.figures()}")
    assert not load.failures()


def test_two_versions_side_by_side(flights, target, call, flight, restored):
    both = named(target, 2)
    both.user_config["versions"] |= target.user_config["versions"]
    deploy(flights.project, both)
    for version in ("1", "2"):
        answer = call("POST", f"/models/flights-late/versions/{version}/predict", {"rows": [flight]})
        assert (answer.status, answer.version, answer.json["model_version"]) == (200, version, version)
    assert call("GET", "/v2/models/flights-late").json["versions"] == ["2", "1"]
    assert call("POST", PREDICT, {"rows": [flight]}).version == "2"


def test_a_broken_bundle_leaves_the_old_version_serving(flights, target, answers, restored, tmp_path, wait):
    pointer = target.user_config["versions"]["1"]
    bundle = shutil.copytree(urlparse(pointer["bundle"]).path, tmp_path / "bundle")
    model = bytearray((bundle / "model.ubj").read_bytes())
    model[len(model) // 2] ^= 1
    (bundle / "model.ubj").write_bytes(model)
    with pytest.raises(RaypipeError, match=r"bundle|endpoint"):
        deploy(flights.project, named(target, 9, bundle=bundle.as_uri()))
    count = len(answers)
    wait(lambda: len(answers) > count + 50, what="fifty more answers", seconds=20)
    assert {status for status, _ in answers} == {200}
    assert answers[-1] == (200, "1")


# ---- serve/config.yaml -------------------------------------------------------------------------


def test_the_config_is_valid():
    config = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text()))
    assert config.http_options.host == "127.0.0.1"
    assert [application.import_path for application in config.applications] == ["raypipe.serving.app:build"]


@pytest.fixture
def deployed(flights, cluster, environment, load, restored, wait, tmp_path) -> SimpleNamespace:
    """serve/config.yaml, for the project's folder and port, by `serve deploy`: other arguments, so a code change."""
    from ray import serve

    config = yaml.safe_load(CONFIG.read_text())
    config["http_options"]["port"] = flights.project.settings.serving.port
    config["applications"][0]["args"]["project"] = str(flights.folder)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [Path(sys.executable).with_name("serve"), "deploy", "--address", cluster.dashboard, tmp_path / "config.yaml"],
        env=environment | {"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    def status() -> object:
        found = serve.status().applications["flights-late"]
        return found if found.status != "DEPLOYING" else None

    return SimpleNamespace(done=done, application=wait(status, what="a deployed application", seconds=120))


def test_the_config_serves_the_champion(deployed, load, call, flight, target):
    assert deployed.done.returncode == 0, deployed.done.stderr
    assert deployed.application.status == "RUNNING", deployed.application.message
    answer = call("POST", PREDICT, {"rows": [flight]})
    assert (answer.status, answer.version) == (200, str(target.version.version))
    assert not load.failures()


def test_another_port_than_that_of_the_running_endpoint_is_refused(flights, target, endpoint, free_port):
    """Serve would keep its port and say nothing that an endpoint's user could see."""
    serving = flights.project.settings.serving.model_copy(update={"port": free_port})
    moved = replace(flights.project, settings=flights.project.settings.model_copy(update={"serving": serving}))
    with pytest.raises(ClusterError, match="has an endpoint already") as refused:
        deploy(moved, target)
    assert refused.value.expected == urlparse(endpoint).netloc

"""The prediction log of a real endpoint: what was answered is what is logged, killed replicas or not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from raypipe.project import load_project
from raypipe.serving.prediction_log.config import log_config

MODEL = "flights-late"
PREDICT = f"/models/{MODEL}/predict"
INTERVAL_S = 1.0


def logged(folder: Path) -> pl.DataFrame:
    table = log_config(load_project(folder)).table
    if not DeltaTable.is_deltatable(table):
        return pl.DataFrame(schema={"request_id": pl.String})
    return pl.DataFrame(DeltaTable(table).to_pyarrow_table())


def test_what_was_answered_is_what_is_logged(flights, call, flight, wait):
    other = flight | {"carrier": "DL", "tailnum": None}
    answers = {
        name: call("POST", PREDICT, {"rows": rows, "id": name})
        for name, rows in (("log-a", [flight]), ("log-b", [other, flight]))
    }
    refused = call("POST", PREDICT, {"rows": [flight | {"origin": "XXX"}], "id": "log-refused"})
    assert {answer.status for answer in answers.values()} == {200}
    assert refused.status == 422
    wait(lambda: logged(flights.folder)["request_id"].is_in(list(answers)).sum() == 3, what="three rows in the table")
    rows = logged(flights.folder).sort("request_id", "row")
    assert "log-refused" not in rows["request_id"].to_list()
    for name, answer in answers.items():
        mine = rows.filter(request_id=name)
        assert mine["scores"].list.first().to_list() == [p["probability"] for p in answer.json["predictions"]]
        assert mine["version"].to_list() == [answer.version] * mine.height
        assert [t.isoformat().replace("+00:00", "Z") for t in mine["feature_time"]] == [
            p["feature_time"] for p in answer.json["predictions"]
        ]
    assert [json.loads(text) for text in rows.filter(request_id="log-b")["fields"]] == [other, flight]


def test_a_prediction_is_traced_at_once_and_its_score_is_the_same_again(flights, call, flight, raypipe):
    answer = call("POST", PREDICT, {"rows": [flight, flight | {"carrier": "B6"}], "id": "just now"})
    done = raypipe("trace", "just now", "--project", flights.folder, "--json")
    assert (done.code, done.json["ok"], done.json["version"]) == (0, True, int(answer.version)), done.err
    [found] = done.json["answers"]
    assert [row["equal"] for row in found["rows"]] == [True, True]
    assert [row["fields"] for row in found["rows"]] == [flight, flight | {"carrier": "B6"}]
    assert list(found["rows"][0]["features"]) == list(flights.training_set.transforms().names)
    assert (done.json["trace"]["kind"], done.json["trace"]["name"]) == ("version", answer.version)
    said = raypipe("trace", "just now", "--project", flights.folder)
    assert said.out.startswith("prediction just now\n")
    assert "score recomputed: equal, bit for bit" in said.out


def test_an_id_that_is_a_versions_number_too(flights, call, flight, raypipe):
    call("POST", PREDICT, {"rows": [flight], "id": "1"})
    version = raypipe("trace", "1", "--project", flights.folder, "--json")
    assert "prediction" not in version.json
    done = raypipe("trace", "1", "--prediction", "--project", flights.folder, "--json")
    assert (done.code, done.json["prediction"], done.json["trace"]) == (0, "1", version.json["trace"]), done.err


def test_an_id_that_nobody_gave(flights, endpoint, raypipe):
    done = raypipe("trace", "nobody-s", "--project", flights.folder, "--json")
    assert (done.code, done.json["error"]) == (1, "RegistryError")
    assert "neither a version nor a logged prediction" in done.json["what"]


# ---- kill -9 -----------------------------------------------------------------------------------


@pytest.fixture
def served(flights, edited, environment, ray_folder, free_port, tmp_path, wait):
    """`raypipe serve` of a copy of the example with two replicas, on a Ray of its own; yields its folder and port."""
    folder = tmp_path / "flights"
    shutil.copytree(flights.folder, folder, ignore=shutil.ignore_patterns("predictions"))
    edited(folder, serving__port=free_port, serving__replicas=2, serving__log={"flush_interval": f"{INTERVAL_S:g}s"})
    given = environment | {"RAY_TMPDIR": str(ray_folder / "log")}
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [Path(os.sys.executable).with_name("raypipe"), "serve", "--project", folder],
            env=given, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait(lambda: answers(free_port), what="an answer", seconds=300)
        yield folder, free_port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(90)


def answers(port: int) -> bool:
    try:
        with closing(HTTPConnection(f"127.0.0.1:{port}", timeout=2)) as connection:
            connection.request("GET", f"/v2/models/{MODEL}/ready")
            return connection.getresponse().status == 200
    except OSError:
        return False


class Load:
    """Clients that ask without a pause and note the id of every answer."""

    def __init__(self, port: int, row: dict, clients: int = 4) -> None:
        self.answered, self.failed, self._stop = [], [], threading.Event()
        self._port, self._body = port, json.dumps({"rows": [row]}).encode()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            with closing(HTTPConnection(f"127.0.0.1:{self._port}", timeout=30)) as connection:
                try:
                    self._ask_by(connection)
                except OSError as error:  # HAProxy ends connections when it is reloaded
                    self.failed.append(type(error).__name__)

    def _ask_by(self, connection: HTTPConnection) -> None:
        while not self._stop.is_set():
            connection.request("POST", PREDICT, self._body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                self.answered.append(response.headers["x-request-id"])
            else:
                self.failed.append(response.status)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def replicas(folder: Path) -> dict[str, int]:
    """Rows by replica in the log."""
    return dict(Counter(logged(folder)["replica"]))


def pids_of_replicas(group_folder: Path) -> list[int]:
    """Processes of Ray below `group_folder` that call themselves our replicas."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                name = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"ServeReplica:" + MODEL.encode() in name and str(group_folder).encode() in environ:
                found.append(int(entry.name))
    return found


def test_every_answer_is_logged_once_though_replicas_are_killed(served, ray_folder, flight, wait):
    folder, port = served
    load = Load(port, flight)
    killed = []
    for _ in range(3):
        time.sleep(1)
        victims = wait(lambda: pids_of_replicas(ray_folder / "log"), what="a replica", seconds=180)
        killed.append(victims[0])
        os.kill(victims[0], signal.SIGKILL)
        wait(
            lambda: len([p for p in pids_of_replicas(ray_folder / "log") if p not in killed]) == 2, what="two replicas"
        )
    time.sleep(1)
    load.stop()
    assert len(load.answered) > 200
    wait(lambda: set(load.answered) <= set(logged(folder)["request_id"]), what="all answers in the table")
    times = Counter(logged(folder)["request_id"])
    assert [name for name in load.answered if times[name] != 1] == []
    assert max(times.values()) == 1

"""Parts of a running endpoint are killed or damaged under load: what its callers see."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from raypipe.project import load_project
from raypipe.registry.ledger import Change, Ledger
from raypipe.registry.lifecycle import promotion, rollback
from raypipe.serving.prediction_log.config import log_config
from raypipe.serving.resolve import releases_of
from tests.cases import MORE
from tests.cluster.serving.faults.conftest import Served, serve
from tests.cluster.serving.faults.held import HeldFile
from tests.cluster.serving.faults.load import Load
from tests.conftest import a_free_port, wait_until

KILLS = 10 if MORE > 1 else 1
ROLLBACKS = 20 if MORE > 1 else 2
FLUSHES = "prediction_log.flush_process"
SETTINGS = {"serving__replicas": 2, "serving__replica_cpus": 0.4, "serving__log": {"flush_interval": "1s"}}
LOST_CONNECTION = {"RemoteDisconnected", "ConnectionResetError", "ConnectionRefusedError", "BrokenPipeError"}


@pytest.fixture(scope="module")
def served(versions, environment, ray_folder) -> Iterator[Served]:
    """Version 1 answers; 2 is held without a share."""
    folder, port = versions(**SETTINGS), a_free_port()
    with serve(folder, port, environment, ray_folder / "f", "--canary", "2=0") as endpoint:
        yield endpoint


@pytest.fixture
def load(served) -> Iterator[Load]:
    """On all live versions, whose scores are checked."""
    live = served.get(f"/v2/models/{served.model}")["versions"]
    with served.load({version: served.score(version) for version in live}) as load:
        yield load


@pytest.fixture
def answered(load, wait) -> Callable[..., None]:
    """Wait for so many right answers to what was sent from now on."""

    def until(count: int) -> None:
        since = time.time()
        wait(lambda: load.good_since(since) >= count, what=f"{count} answers", seconds=120)

    until(100)
    return until


@pytest.fixture
def report(load, capsys) -> Callable[[str], None]:
    def say(what: str) -> None:
        with capsys.disabled():
            print(f"\n{what}: {load.figures()}")

    return say


@pytest.fixture
def append(served) -> Callable[..., None]:
    """Append what `decide` makes of the ledger: the command would look at the bundle first."""

    def change(decide: Callable[..., Change | None], *arguments: int) -> None:
        project = load_project(served.folder)
        known = releases_of(project)
        made = decide(known, *arguments)
        assert made is not None
        assert Ledger.of(project).append(made, after=known.last, at=datetime.now(UTC), who="a test")

    return change


def model_of(served: Served, version: int) -> Path:
    """The file of a version's trees."""
    project = load_project(served.folder)
    return project.storage / "bundles" / str(releases_of(project).evidence[version].bundle) / "model.ubj"


def kill_one(served: Served, program: str) -> int:
    pid = min(served.pids(program))
    os.kill(pid, signal.SIGKILL)
    return pid


def replicas(served: Served) -> set[int]:
    return served.pids("ray::ServeReplica")


def ready(served: Served) -> set[int]:
    """Of them those that answer: killing one of two while the other still loads leaves none."""
    return {facts["pid"] for facts in served.get("/admin/status")["replicas"]} & replicas(served)


# ---- killed ------------------------------------------------------------------------------------


def test_a_killed_replica(served, load, answered, wait, report):
    """Requests that it had taken are sent again to the other one: it is stopped first, so that there are some."""
    for _ in range(KILLS):
        before = wait(lambda: len(ready(served)) == 2 and ready(served), what="two replicas", seconds=120)
        pid = min(before)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        wait(partial(lambda known: replicas(served) - known, before), what="a new replica", seconds=120)
        answered(200)
    report(f"kill -9 of one of two replicas, {KILLS} times")
    assert not load.failures()


def test_its_ray_runs_nothing_that_nobody_uses(served, wait):
    assert not set().union(*map(served.pids, ("log_monitor.py", "/monitor.py", "dashboard/dashboard.py")))
    wait(lambda: len(served.pids(FLUSHES)) == 1, what="one process that flushes for both replicas")


def test_every_answer_is_logged_once_though_replicas_and_what_flushes_are_killed(served, load, answered, wait):
    for turn in range(2 * KILLS):
        before = wait(lambda: len(ready(served)) == 2 and ready(served), what="two replicas", seconds=120)
        if turn % 2:
            wait(lambda: served.pids(FLUSHES), what="a process that flushes", seconds=60)
        for pid in served.pids(FLUSHES):
            os.kill(pid, signal.SIGKILL)
        os.kill(min(before), signal.SIGKILL)
        wait(partial(lambda known: replicas(served) - known, before), what="a new replica", seconds=120)
        answered(200)
    load.stop()
    named = [answer.id for answer in load.answers if answer.failure is None]
    table = log_config(load_project(served.folder)).table

    def logged() -> Counter[str]:
        return Counter(DeltaTable(table).to_pyarrow_table(columns=["request_id"])["request_id"].to_pylist())

    wait(lambda: set(named) <= set(logged()), what="all answers in the table")
    assert len(named) == len(set(named)) > 400
    assert set(Counter(logged()).values()) == {1}
    assert not load.failures()


def test_the_killed_controller(served, load, answered, wait, report):
    pid = kill_one(served, "ray::ServeController")
    wait(lambda: served.pids("ray::ServeController") - {pid}, what="a new controller", seconds=120)
    answered(300)
    report("kill -9 of the Serve controller")
    assert not load.failures()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="HAProxy's binary exists for x86-64 Linux only")
def test_the_killed_proxy(served, load, answered, wait, report):
    """Its connections are lost; a stand-in takes new ones at once, and Ray's next HAProxy takes over from it."""
    killed = served.pids("bin/haproxy")  # those too that still answer what they had taken before a change of replicas
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait(lambda: served.pids("haproxy.cfg.stand-in"), what="a stand-in")
    answered(100)
    lost = load.failures().total()
    wait(lambda: not served.pids("haproxy.cfg.stand-in") and served.pids("bin/haproxy") - killed, what="HAProxy", seconds=120)  # fmt: skip
    answered(200)
    report("kill -9 of HAProxy")
    assert set(load.failures()) <= LOST_CONNECTION
    assert load.failures().total() == lost, "requests failed when the stand-in was relieved"


def test_the_killed_writer_of_online_values(served, load, answered, started, cli, tmp_path, report):
    """`raypipe ingest` is killed at some moment: readers see the state as it was, and the next one writes."""
    rows = pl.read_parquet(served.folder / "data" / "deliveries.parquet")
    others = rows.with_columns(  # of other entities than the load's
        pl.col("order_id") + 10_000_000, shop=pl.lit("shop-98"), courier=pl.lit("courier-98")
    )
    others.write_parquet(tmp_path / "rows.parquet")
    arguments = ("ingest", tmp_path / "rows.parquet", "--source", "deliveries", "--project", served.folder)
    dice = random.Random(6)
    for _ in range(3 * KILLS):
        writer = started(*arguments)
        time.sleep(dice.uniform(0.5, 2.5))
        os.killpg(writer.pid, signal.SIGKILL)
        writer.wait()
    done = cli(*arguments, "--json")
    assert done.code == 0, done.err
    answered(100)
    report(f"kill -9 of raypipe ingest, {3 * KILLS} times")
    assert not load.failures()


# ---- damaged and unreachable -------------------------------------------------------------------


def test_the_registry_is_gone_for_a_while(served, load, answered, wait, report):
    """Ledger and MLflow: the endpoint says so once and goes on; a replica that is killed meanwhile comes back."""
    storage = served.folder / ".raypipe"
    for name in ("ledger", "mlflow"):
        (storage / name).rename(storage / f"{name}-away")
    try:
        wait(lambda: "an entry of the ledger is gone" in served.said(), what="a word of it")
        before = replicas(served)
        kill_one(served, "ray::ServeReplica")
        wait(lambda: replicas(served) - before, what="a new replica", seconds=120)
        answered(200)
    finally:
        for name in ("ledger", "mlflow"):
            (storage / f"{name}-away").rename(storage / name)
    report("ledger and MLflow removed for a while")
    assert not load.failures()
    assert served.said().count("an entry of the ledger is gone") == 1


def test_a_damaged_bundle(served, load, answered, append, cli, wait, report):
    """A version that cannot be loaded is refused, and said to be; what serves goes on, and a rollback ends it."""
    damaged = model_of(served, 3)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        append(promotion, 3)
        wait(lambda: "version 1 goes on serving: a file of the bundle was changed" in served.said(), what="a refusal")
        answered(100)
        rolled = cli("rollback", "--project", served.folder, "--json")
        assert (rolled.code, rolled.json["version"]) == (0, 1)
    finally:
        damaged.write_bytes(whole)
    answered(100)
    report("a damaged bundle promoted")
    assert not load.failures()
    assert {answer.version for answer in load.answers} == {"1"}


# ---- slow --------------------------------------------------------------------------------------


Told = tuple[str, str] | None


def loads(served: Served, version: str) -> list[Told]:
    """In both replicas: state of a version and since when, None where it is not known. Serve does not name a replica
    that it is just telling of a change: then it is asked again."""

    def found() -> list[Told]:
        facts = [replica["versions"] for replica in served.get("/admin/status")["replicas"]]
        known = [{v["version"]: (v["state"], v["since"]) for v in versions} for versions in facts]
        return [one.get(version) for one in known] if len(known) == 2 else []

    both: list[Told] = wait_until(found, what="both replicas in the status")
    return both


def test_a_version_on_a_storage_that_hangs(served, load, answered, append, wait, report):
    """While it cannot be read the old one answers; rolled back meanwhile, it never answers; once it is read, it can."""
    with HeldFile(model_of(served, 4)) as held:
        append(promotion, 4)
        wait(lambda: "still reading; version 1 goes on serving" in served.said(), what="a word of it")

        def told() -> list[Told]:
            """Once both replicas are; the command may read what it looks at first."""
            waited_for, found = held.waited_for, loads(served, "4")
            if waited_for and found == [None, None]:
                held.let_in()
            return [] if None in found else found

        loading = wait(told, what="the version in both replicas")
        assert {state for state, _ in loading} == {"loading"}
        append(rollback)
        wait(lambda: not set(loads(served, "4")) & set(loading), what="the rollback in both replicas")
        answered(100)
    wait(lambda: {one and one[0] for one in loads(served, "4")} == {"loaded"}, what="the version loaded")
    answered(100)
    assert {answer.version for answer in load.answers} == {"1"}
    load.scores["4"] = served.score("4")
    append(promotion, 4)
    wait(lambda: load.answers[-1].version == "4", what="version 4")
    append(rollback)
    wait(lambda: load.answers[-1].version == "1", what="version 1")
    report("a version on a storage that hangs")
    assert not load.failures()


# ---- rollback ----------------------------------------------------------------------------------


def test_a_rollback_reaches_callers(served, load, answered, cli, wait, report, capsys):
    """No request fails, and no answer of the new version comes after the old one has answered everybody."""
    for _ in range(ROLLBACKS):
        assert cli("promote", 2, "--project", served.folder).code == 0
        wait(lambda: load.answers[-1].version == "2", what="version 2")
        answered(100)
        assert cli("rollback", "--project", served.folder).code == 0
        appended = max((served.folder / ".raypipe" / "ledger").glob("*.json")).stat().st_mtime
        wait(lambda: load.answers[-1].version == "1", what="version 1")
        answered(300)
        since = [answer for answer in load.since(0) if answer.ended > appended]
        first = min(answer.ended for answer in since if answer.version == "1") - appended
        last = max((answer.ended for answer in since if answer.version == "2"), default=appended) - appended
        with capsys.disabled():
            print(f"\nrollback: version 1 answers after {first * 1000:.0f} ms, version 2 until {last * 1000:.0f} ms")
    report("promotions and rollbacks")
    assert not load.failures()
    assert load.answers[-1].version == "1"

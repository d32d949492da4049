"""The plan never changes a byte (DESIGN 3.4)."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import orjson
import polars as pl
import pytest

from raypipe.features import exchange, plan_distributed, plan_local, point_in_time, ray_items
from raypipe.features.training_set import build_training_set
from raypipe.project import Project

AS_OF = datetime(2024, 2, 5, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def local(messy, build, tmp_path_factory):
    return build(messy(tmp_path_factory.mktemp("local")), "local")


@pytest.fixture
def watched(monkeypatch) -> SimpleNamespace:
    """The second stage's tasks; and every item and answer that passes between driver and tasks, in bytes of JSON."""
    seen = SimpleNamespace(tasks=[], sizes=[])
    plan, mapped = exchange.compute_tasks, ray_items.mapped

    def compute_tasks(*given):
        seen.tasks = plan(*given)
        return seen.tasks

    def watch(items, function):
        for answer in mapped(items, function):
            seen.sizes.append(len(orjson.dumps(answer)))
            yield answer

    monkeypatch.setattr(plan_distributed, "compute_tasks", compute_tasks)
    monkeypatch.setattr(plan_distributed, "mapped", watch)
    return seen


def rows_of(task: dict, kind: str) -> int:
    return sum(run[2] for run in task[kind])


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("seed", "rows", "settings"),
    [
        (11, 1500, {}),
        (12, 1500, {"task_rows": 400, "chunk_rows": 64, "partition": "week"}),
        (13, 900, {"task_rows": 300, "chunk_rows": 1000, "partition": "week", "batch_rows": 300}),
    ],
)
def test_messy_rows(messy, build, hashes, watched, tmp_path, seed, rows, settings):
    local = build(messy(tmp_path / "local", seed=seed, rows=rows, **settings), "local")
    distributed = build(messy(tmp_path / "distributed", seed=seed, rows=rows, **settings), "distributed")
    assert (distributed.digest, distributed.reused) == (local.digest, False)
    assert hashes(distributed) == hashes(local)
    assert max(watched.sizes) < 200_000


@pytest.mark.usefixtures("cluster")
def test_messy_rows_as_of_a_past_moment(messy, build, hashes, tmp_path):
    local, distributed = (
        build(messy(tmp_path / plan, rows=900, task_rows=200), plan, AS_OF) for plan in ("local", "distributed")
    )
    assert hashes(distributed) == hashes(local)
    assert local.digest != build(tmp_path / "local", "local").digest


@pytest.mark.usefixtures("cluster")
def test_a_hot_entity_is_divided_by_time(messy, build, hashes, local, watched, tmp_path):
    """One user has more rows than a task may read, so several tasks share them."""
    distributed = build(messy(tmp_path, task_rows=500), "distributed")
    hot = pl.scan_parquet(distributed.files("train"), glob=False).filter(pl.col("user") == "hot")
    assert hot.select(pl.len()).collect().item() > 500
    of_users = [task for task in watched.tasks if task["view"] == "by_user"]
    assert len(of_users) > 5
    assert (
        max(rows_of(task, kind) for task in of_users for kind in ("spine", "events")) < 1000
    )  # half of the hot user's
    assert hashes(distributed) == hashes(local)


@pytest.mark.usefixtures("cluster")
def test_no_table_comes_to_the_driver(messy, build, monkeypatch, watched, tmp_path):
    """The driver joins nothing and reads no features; what tasks tell it does not grow with the rows they hold."""

    def refuse(*_, **__):
        raise AssertionError("in the driver")

    for module, name in (
        (point_in_time, "view_features"),
        (plan_distributed, "view_features"),
        (plan_local, "run"),
        (exchange.Exchange, "get"),
        (exchange.Exchange, "put"),
    ):
        monkeypatch.setattr(module, name, refuse)
    sizes = {}
    for rows in (500, 4000):
        watched.sizes.clear()
        build(messy(tmp_path / str(rows), rows=rows, chunk_rows=10_000), "distributed")
        sizes[rows] = max(watched.sizes)
    assert sizes[4000] < sizes[500] * 1.2


def test_messy_rows_are_messy(local):
    rows = pl.read_parquet(local.files("train"))
    assert rows.height > 1000
    assert len(local.files("train")) > 2
    assert rows.filter(pl.col("user") == "hot").height > rows.height * 0.4
    for column in ("user", "site", "by_user_6h_last", "price_price", "price_kind", "plan_plan", "ratio_cost"):
        assert 0 < rows[column].null_count() < rows.height
    assert rows["by_site_user_3d_calls"].max() > 20
    assert local.manifest["sources"]["calls"]["violations"]["primary_key"] > 50


@pytest.mark.usefixtures("cluster")
def test_flights(flights, hashes, tmp_path):
    assert flights.training_set.manifest["plan"] == "distributed"
    settings = flights.project.settings.model_copy(update={"storage": str(tmp_path)})
    project = Project(flights.folder, settings, flights.project.definitions)
    local = build_training_set(project, flights.sources, "local")
    assert not local.reused
    assert hashes(local) == hashes(flights.training_set)


@pytest.mark.usefixtures("cluster")
def test_workers_take_the_definitions_of_now(messy, build, hashes, tmp_path):
    """A session that edits features.py and builds again: its workers are warm."""
    build(messy(tmp_path / "project", rows=300), "distributed")
    edited = build(messy(tmp_path / "project", rows=300, window="12h"), "distributed")
    local = build(messy(tmp_path / "local", rows=300, window="12h"), "local")
    assert edited.digest == local.digest
    assert hashes(edited) == hashes(local)


# ---- two nodes -----------------------------------------------------------------------------------

TWO_NODES = """
import json, sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from raypipe.data.sources import prepare_source
from raypipe.features import plan_distributed
from raypipe.features.training_set import build_training_set
from raypipe.project import load_project

folder, where = sys.argv[1:]
features = plan_distributed._features

def noted(item, **given):
    (Path(where) / ray.get_runtime_context().get_node_id()).touch()
    return features(item, **given)

plan_distributed._features = noted
nodes = Cluster()
for _ in range(2):
    nodes.add_node(num_cpus=1, object_store_memory=100_000_000, include_dashboard=False)
ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
project = load_project(folder)
sources = {name: prepare_source(project, name) for name in project.settings.sources}
made = build_training_set(project, sources, "distributed")
print(json.dumps([made.digest, len(ray.nodes())]))
ray.shutdown()
nodes.shutdown()
"""


def test_two_nodes(messy, build, hashes, environment, ray_folder, tmp_path):
    """A cluster of two nodes with a CPU each, in a process of its own: both compute, and the bytes are the same."""
    folder, where = messy(tmp_path / "project", rows=800, task_rows=100), tmp_path / "nodes"
    where.mkdir()
    variables = environment | {"RAY_TMPDIR": str(ray_folder / "two"), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_NODES, folder, where], env=variables, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    digest, nodes = json.loads(done.stdout.splitlines()[-1])
    assert (nodes, len(list(where.iterdir()))) == (2, 2)
    local = build(messy(tmp_path / "local", rows=800, task_rows=100), "local")
    assert digest == local.digest
    assert hashes(build(folder, "local")) == hashes(local)  # found, not built

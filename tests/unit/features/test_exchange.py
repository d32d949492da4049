"""What the distributed plan decides and moves, without Ray."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.definitions import FeatureView
from raypipe.features.build import survey_spine
from raypipe.features.exchange import Exchange, Layout, Scratch, compute_tasks, grouped, joined, layout, scan_tasks
from raypipe.features.job import Build, Job
from raypipe.features.partitions import Partition, moment, us
from raypipe.features.plan_distributed import Computed, assemble_tasks
from tests.cases import MORE

TIME = pl.Datetime("us", "UTC")


@pytest.fixture(scope="module")
def made(rides, prepared, tmp_path_factory):
    return prepared(
        rides.make(tmp_path_factory.mktemp("exchange"), rides.history(12, rows=300, days=20), partition="week")
    )


def job_of(made, builds: list[Build]) -> Job:
    return Job(
        str(made.project.folder),
        made.project.settings,
        made.project.definitions.digest(),
        made.sources,
        None,
        tuple(builds),
    )


def a_job(made, start: datetime, end: datetime, rows: int = 1) -> Job:
    return job_of(made, [Build(Partition(start, end, "train", rows, ()), {0: rows}, made.project.folder)])


def view_of(made, name: str):
    return next(view for view in made.project.definitions.views if view.name == name)


def slices_of(plan: Layout, times: list[int]) -> list[int]:
    return pl.select(plan.slice_of(pl.Series([moment(t) for t in times], dtype=TIME))).to_series().to_list()


# ---- layout --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "spine_rows", "task_rows", "cpus", "buckets", "sliced"),
    [
        ("past_driver", 1, 10**6, 8, 1, False),
        ("past_driver", 250_000, 10**6, 8, 3, False),  # a bucket for each 100,000 rows, up to the cluster's CPUs
        ("past_driver", 250_000, 10**6, 2, 2, False),
        ("past_driver", 250_000, 250_000, 2, 2, False),
        ("past_driver", 250_000, 249_999, 2, 3, True),
        ("wet", 10**8, 4 * 10**6, 2, 50, True),  # few events, many who ask
        ("past_driver", 1, 1, 2, 650, True),
    ],
)
def test_rows_are_divided_by_how_many_there_are(made, rides, view, spine_rows, task_rows, cpus, buckets, sliced):
    job = a_job(made, rides.start, rides.start + timedelta(days=20), spine_rows)
    plan = layout(view_of(made, view), job, task_rows, cpus)
    events = sum(part.rows for part in made.sources["rides"].parts)
    assert plan.buckets == (2 * events if buckets == 650 else buckets)
    assert (plan.slices > 1) == sliced


@given(
    st.sampled_from(["past_driver", "past_zone_driver", "wet", "now", "ever"]),
    st.integers(1, 90 * 24 * 3600 * 10**6),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30),
)
@settings(max_examples=25 * MORE)
def test_a_task_reads_the_slices_of_every_event_that_its_rows_may_see(made, rides, name, length_us, points):
    start, view = us(rides.start), view_of(made, name)
    plan = layout(view, a_job(made, rides.start, moment(start + length_us)), 1, 2)
    for share, ago in points:
        t = start + min(int(share * length_us), length_us - 1)
        oldest = t - 400 * 86_400_000_000 if name == "ever" else t - 43_200_000_000
        if isinstance(view, FeatureView):
            oldest = min(window.tail(t) for window in view.spans())
        asked, *seen = slices_of(plan, [t, oldest, t, oldest + int(ago * (t - oldest))])
        assert 0 <= asked < plan.slices
        assert set(seen) <= set(plan.reach(asked, asked))


# ---- tasks ---------------------------------------------------------------------------------------

COUNTS = st.dictionaries(st.integers(0, 23), st.integers(1, 50), min_size=1)


@given(
    COUNTS,
    st.dictionaries(st.integers(-9, 23), st.integers(1, 50)),
    st.sampled_from([None, 1, 4, 9]),
    st.integers(1, 200),
)
def test_runs_of_slices_are_as_long_as_they_may_be(spine, events, back, most):
    plan = Layout(1, 0, 1, 24, back)

    def seen(first: int, last: int) -> int:
        reached = range(-9, last + 1) if back is None else range(max(first - back, -9), last + 1)
        return sum(events.get(s, 0) for s in reached)

    def size(first: int, last: int) -> int:
        return max(sum(spine.get(s, 0) for s in range(first, last + 1)), seen(first, last))

    if back is None:
        events = {max(s, -1): n for s, n in events.items()}
    allowed = max([most, *(seen(s, s) * 3 // 2 for s in spine)])  # where one slice alone looks at more than `most`
    runs = grouped(spine, events, plan, most)
    covered = [s for first, last in runs for s in spine if first <= s <= last]
    assert sorted(covered) == sorted(spine)
    assert runs == sorted(runs)
    assert all(first == last or size(first, last) <= allowed for first, last in runs)
    assert all(size(first, following) > allowed for (first, _), (following, _) in pairwise(runs))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(1, 4)), max_size=12))
def test_joined_runs_hold_the_same_rows(runs):
    def rows(some) -> list[tuple[str, int]]:
        return [(file, at + n) for file, at, length in some for n in range(length)]

    assert rows(joined(runs)) == rows(runs)


def test_runs_that_follow_upon_each_other_are_one():
    assert joined([("a", 0, 2), ("a", 2, 3), ("b", 5, 1), ("a", 5, 1), ("a", 7, 1)]) == [
        ("a", 0, 5),
        ("b", 5, 1),
        ("a", 5, 1),
        ("a", 7, 1),
    ]


@pytest.mark.parametrize(("task_rows", "fewest", "most"), [(10**6, 5, 5), (60, 30, 300)])
def test_tasks_share_out_the_spine_and_read_what_it_may_see(rides, prepared, tmp_path, task_rows, fewest, most):
    made = prepared(rides.make(tmp_path, rides.history(12, rows=300, days=20), partition="week", task_rows=task_rows))
    survey = survey_spine(made.project, made.sources, None)
    job = job_of(made, [Build(p, survey.chunks[p.start], tmp_path) for p in survey.partitions])
    with Scratch.make(tmp_path) as scratch:
        exchange = Exchange.of(made.project, job, scratch.folder, 2)
        scans = scan_tasks(made.project, job, exchange)
        tasks = compute_tasks(exchange, [f for item in scans for f in exchange.write(made.project, job, item)])
        asked: dict[str, list[int]] = {}
        for item in tasks:
            view = exchange.view(made.project, item["view"])
            spine = pl.concat(exchange.get(item["spine"]))
            events = pl.concat([job.no_events(view), *exchange.get(item["events"])])
            asked.setdefault(view.name, []).extend(spine["__row"])
            assert missed(view, spine, job.events(view).collect(), events) == 0
    everybody = sorted(job.spine(made.project).select("__row").collect()["__row"])
    assert {view: sorted(rows) for view, rows in asked.items()} == dict.fromkeys(exchange.layouts, everybody)
    assert fewest <= len(tasks) <= most
    assert list((tmp_path / "scratch").iterdir()) == []


def missed(view, spine: pl.DataFrame, every: pl.DataFrame, events: pl.DataFrame) -> int:
    """Events that a spine row may see (same entity, known, within the longest window) and the task does not read."""
    keys = list(view.entity)
    pairs = spine.select(*keys, "prediction_time").join(every.with_row_index("n"), on=keys)
    t = pl.col("prediction_time").dt.epoch("us")
    seen = pairs.filter(pl.max_horizontal("__event_time", "__known_time") <= pl.col("prediction_time"))
    if isinstance(view, FeatureView):
        longest = max(view.spans(), key=lambda window: window.length_us)
        tail = (t - longest.length_us) // longest.hop_us * longest.hop_us
        seen = seen.filter(pl.col("__event_time").dt.epoch("us") >= tail)
    elif view.max_age_us:
        seen = seen.filter(pl.col("__event_time").dt.epoch("us") >= t - view.max_age_us)
    needed = every.with_row_index("n").filter(pl.col("n").is_in(seen["n"].implode())).drop("n")
    return needed.join(events, on=events.columns, how="anti", nulls_equal=True).height


# ---- assembling ----------------------------------------------------------------------------------


def test_chunks_are_assembled_together_up_to_a_number_of_rows(made, rides, monkeypatch):
    monkeypatch.setattr("raypipe.features.plan_distributed.ASSEMBLED_ROWS", 10)
    days = [rides.start + timedelta(days=n) for n in range(4)]
    chunks = [{1: 4, 2: 4}, {2: 4, 3: 9}, {3: 1}]
    builds = [Build(Partition(*days[n : n + 2], "train", 8, ()), c, made.project.folder) for n, c in enumerate(chunks)]
    computed = {
        days[n].isoformat(): [Computed("v", chunk, ("f", 100 * n + chunk, 1)) for chunk in c]
        for n, c in enumerate(chunks)
    }
    tasks = assemble_tasks(job_of(made, builds), computed)
    assert [[(p["build"], p["chunks"], p["features"]) for p in task["parts"]] for task in tasks] == [
        [(0, [1, 2], {"v": [("f", 1, 2)]}), (1, [2], {"v": [("f", 102, 1)]})],
        [(1, [3], {"v": [("f", 103, 1)]})],
        [(2, [3], {"v": [("f", 203, 1)]})],
    ]


# ---- files ---------------------------------------------------------------------------------------


def test_runs_come_back_as_they_were_put(tmp_path):
    kinds = pl.Enum(["low", "high"])
    rows = pl.DataFrame(
        {
            "at": [moment(n * 10**12) for n in range(6)],
            "text": [None, "", "ä" * 40, "b", "c" * 13, "d"],
            "kind": ["low", None, "high", "low", "low", "high"],
            "yes": [True, None, False, True, True, False],
            "x": [0.1, float("nan"), None, -0.0, 1e300, float("inf")],
        },
        schema_overrides={"at": TIME, "kind": kinds},
    )
    exchange = Exchange(tmp_path, {}, 1)
    file, other = exchange.put(rows), exchange.put(pl.concat([rows[:2], rows[2:]], rechunk=False))
    runs = [(file, 0, 6), (other, 1, 4), (file, 5, 1)]
    for found, (_, at, length) in zip(exchange.get(runs), runs, strict=True):
        assert found.equals(rows.slice(at, length))
        assert found.schema == rows.schema


def test_what_killed_jobs_left_is_removed_after_a_day(tmp_path):
    old, new = tmp_path / "scratch" / "old", tmp_path / "scratch" / "new"
    for folder, age in ((old, 86_401), (new, 3600)):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age,) * 2)
    with Scratch.make(tmp_path) as scratch:
        assert not old.exists()
        assert new.exists()
        assert scratch.folder.is_dir()
    assert not scratch.folder.exists()

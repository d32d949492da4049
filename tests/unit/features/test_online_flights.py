"""Online values equal offline ones, bit for bit, on real flights, while a state moves through 2013 (DESIGN 3.3)."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import polars as pl
import pytest

from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.source import KNOWN_TIME
from raypipe.features.online import OnlineState
from raypipe.features.online_build import advance, build_online_state, ingest
from raypipe.features.online_plan import state_folder, state_plan
from raypipe.features.point_in_time import event_columns, view_features
from raypipe.features.serving_spec import ServingSpec, serving_spec
from raypipe.features.spine import spine
from raypipe.project import Project, load_project

pytestmark = pytest.mark.slow

MOMENTS, OTHERS = 8, 100
WINDOWS = ["at_origin", "by_carrier", "of_plane", "by_carrier_at_origin", "on_route"]


@pytest.fixture(scope="module")
def both(flights, tmp_path_factory) -> SimpleNamespace:
    """Feature values of the same rows at the same times: from a state that moves on, and from the join."""
    folder = tmp_path_factory.mktemp("online") / "flights"
    shutil.copytree(flights.project.folder, folder, ignore=shutil.ignore_patterns(".raypipe", "__pycache__"))
    project, sources = load_project(folder), flights.sources
    rows = spine(project.definitions.label, sources["flights"].scan(), project.settings).collect()
    moments = rows["prediction_time"].unique().sort().sample(MOMENTS, seed=7).sort()
    built = build_online_state(project, sources, moments[0])
    spec = ServingSpec.from_json(serving_spec(project.definitions).to_json())
    state = OnlineState(built.folder, spec, built.identity)
    asked, online = [], []
    for number, moment in enumerate(moments):
        advance(project, moment)
        at = pl.lit(moment).alias("prediction_time")
        mine = rows.filter(pl.col("prediction_time") == at)
        asked.append(pl.concat([mine, rows.sample(OTHERS, seed=number)]).with_columns(at))
        online.append(answers(state, asked[-1]))
    frame = pl.concat(asked)
    looked_up = [view for view in project.definitions.views if isinstance(view, FeatureView | LatestView)]
    offline = {
        view.name: view_features(view, sources[view.source.name].scan().select(event_columns(view)).collect(), frame)
        for view in looked_up
    }
    return SimpleNamespace(asked=frame, online=pl.concat(online), offline=offline, project=project, state=state)


def answers(state: OnlineState, asked: pl.DataFrame) -> pl.DataFrame:
    """At the moment of the rows, whatever the prediction times of their own flights."""
    with state.snapshot() as known:
        times = asked["prediction_time"].dt.epoch("us").to_numpy()
        return known.features(asked.select(state.spec.schema().names()), known.feature_times(times))


def test_the_rows_are_enough_to_mean_something(both):
    assert both.asked.height > MOMENTS * OTHERS + MOMENTS
    assert both.asked["prediction_time"].n_unique() == MOMENTS
    assert both.asked["prediction_time"].dt.month().n_unique() >= 6
    assert both.online.columns == list(both.project.definitions.features())
    for view in WINDOWS:
        assert both.online[f"{view}_7d_flights"].sum() > 0


@pytest.mark.parametrize("name", [*WINDOWS, "weather", "plane", "destination"])
def test_every_view(both, name):
    offline = both.offline[name].drop("__row")
    assert both.online.select(offline.columns).equals(offline)
    if name not in WINDOWS:
        assert offline.null_count().sum_horizontal().item() < offline.height * offline.width // 4


def test_ingesting_the_files_rows_is_the_same(both, flights):
    """A state that never saw the files, in batches whose rows come in any order."""
    last = both.asked["prediction_time"].max()
    settings = both.project.settings.model_copy(update={"storage": ".other"})
    project = Project(both.project.folder, settings, both.project.definitions)
    for name in ("planes", "airports"):
        ingest(project, name, flights.sources[name].scan().collect(), last)
    for name in ("weather", "flights"):
        recent = flights.sources[name].scan().filter(pl.col(KNOWN_TIME) > pl.lit(last).dt.offset_by("-9d"))
        for batch in recent.collect().sample(fraction=1, shuffle=True, seed=1).iter_slices(3000):
            ingest(project, name, batch, last)
    state = OnlineState(state_folder(project), both.state.spec, state_plan(project).identity)
    asked = both.asked.filter(pl.col("prediction_time") == pl.lit(last))
    assert answers(state, asked).equals(answers(both.state, asked))

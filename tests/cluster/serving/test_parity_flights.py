"""Online values equal offline ones on real flights, at forty moments of 2013 (DESIGN 3.3). Needs no Ray."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from raypipe.data.sources import prepare_source
from raypipe.definitions import FeatureView, RequestView
from raypipe.features.online import STATE, OnlineState
from raypipe.features.online_build import build_online_state
from raypipe.features.point_in_time import event_columns, view_features
from raypipe.features.serving_spec import ServingSpec, serving_spec
from raypipe.features.spine import spine
from raypipe.project import load_project

EXAMPLE = Path(__file__).parents[3] / "examples" / "flights"
MOMENTS, OTHERS = 40, 60


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Feature values of the same rows at the same times: from online states as of then, and from the join."""
    folder = tmp_path_factory.mktemp("parity") / "flights"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".raypipe", "__pycache__"))
    project = load_project(folder)
    sources = {name: prepare_source(project, name) for name in project.settings.sources}
    definitions = project.definitions
    rows = spine(definitions.label, sources["flights"].scan(), project.settings).collect()
    moments = rows["prediction_time"].unique().sort().sample(MOMENTS, seed=7)
    spec = ServingSpec.from_json(serving_spec(definitions).to_json())
    asked, online = [], []
    for number, moment in enumerate(moments):
        at = pl.lit(moment).alias("prediction_time")
        mine = rows.filter(pl.col("prediction_time") == at)
        mine = pl.concat([mine, rows.sample(OTHERS, seed=number)]).with_columns(at)
        output = build_online_state(project, sources, moment)
        state = OnlineState(output.path(STATE), spec, output.manifest["as_of_us"])
        online.append(
            state.features(mine.select(spec.schema().names()), mine["prediction_time"].dt.epoch("us").to_numpy())
        )
        shutil.rmtree(output.folder)
        asked.append(mine)
    frame = pl.concat(asked)
    offline = {
        view.name: view_features(view, sources[view.source.name].scan().select(event_columns(view)).collect(), frame)
        for view in definitions.views
        if not isinstance(view, RequestView)
    }
    return SimpleNamespace(asked=frame, online=pl.concat(online), offline=offline, definitions=definitions)


WINDOWS = ["at_origin", "by_carrier", "of_plane", "by_carrier_at_origin", "on_route"]


def test_the_rows_are_enough_to_mean_something(both):
    assert both.asked.height > MOMENTS * OTHERS + MOMENTS
    assert both.asked["prediction_time"].n_unique() == MOMENTS
    assert both.asked["prediction_time"].dt.month().n_unique() >= 9
    assert both.online.columns == list(both.definitions.features())
    for view in WINDOWS:
        assert both.online[f"{view}_7d_flights"].sum() > 0


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(both, name):
    view = next(v for v in both.definitions.views if isinstance(v, FeatureView) and v.name == name)
    offline = both.offline[name]
    for feature, dtype in view.features().items():
        mine, right = both.online[feature], offline[feature]
        assert mine.dtype == right.dtype == dtype
        assert mine.is_null().equals(right.is_null()), feature
        if dtype == pl.Int64:
            assert mine.equals(right), feature
        else:
            off = np.abs(mine.to_numpy() - right.to_numpy())
            assert np.nanmax(off - 1e-9 * np.abs(right.to_numpy())) <= 0, feature


@pytest.mark.parametrize("name", ["weather", "plane", "destination"])
def test_latest_rows(both, name):
    offline = both.offline[name].drop("__row")
    assert both.online.select(offline.columns).equals(offline)
    assert offline.null_count().sum_horizontal().item() < offline.height * offline.width // 4

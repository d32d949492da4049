"""What a value may not depend on: every answer is the same to the bit."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raypipe as rp
from raypipe.features import entity_codes, point_in_time
from raypipe.features.algebra import WHOLE
from tests.cases import MORE

EACH = settings(
    max_examples=3 * MORE, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SEEDS = st.integers(0, 2**32)

VIEWS = {
    "windows": lambda pit: rp.FeatureView("v", pit.source(corrections=True), ["user", "shop"], ["5m", "1h"], pit.AGGREGATIONS),
    "windows by blocks": lambda pit: rp.FeatureView("v", pit.source(corrections=True), "user", ["5m", "1h"], {n: a for n, a in pit.AGGREGATIONS.items() if a.kind not in WHOLE}),
    "latest": lambda pit: rp.LatestView("v", pit.source(corrections=True), ["user", "shop"], ["x", "f", "word"]),
}  # fmt: skip
each_view = pytest.mark.parametrize("kind", VIEWS)


def bits(frame) -> list[str]:
    """Every row in the order of `__row`; a float's repr tells its bits."""
    return [repr(row) for row in frame.sort("__row").rows()]


@each_view
@given(seed=SEEDS)
@EACH
def test_the_order_of_rows(pit, kind, seed):
    events, spine = pit.world(seed, corrected=True)
    view, dice = VIEWS[kind](pit), random.Random(seed)
    shuffled = pit.join(view, dice.sample(events, len(events)), dice.sample(spine, len(spine)))
    assert bits(shuffled) == bits(pit.join(view, events, spine))


@each_view
@given(seed=SEEDS, threads=st.sampled_from([1, 2]), bucket_rows=st.sampled_from([1, 5, 40]))
@EACH
def test_buckets_and_threads(pit, monkeypatch, kind, seed, threads, bucket_rows):
    events, spine = pit.world(seed, corrected=True)
    whole = pit.join(VIEWS[kind](pit), events, spine)
    with monkeypatch.context() as patch:
        patch.setattr(point_in_time, "BUCKET_ROWS", bucket_rows)
        assert bits(pit.join(VIEWS[kind](pit), events, spine, threads=threads)) == bits(whole)


@each_view
@given(seed=SEEDS)
@EACH
def test_other_entities_and_other_questions(pit, kind, seed):
    events, spine = pit.world(seed, entities=6, corrected=True)
    view = VIEWS[kind](pit)
    whole, groups = bits(pit.join(view, events, spine)), pit.by_entity(spine, view.entity)
    for entity, asked in groups.items():
        mine = [e for e in events if tuple(e[c] for c in view.entity) == entity]
        assert bits(pit.join(view, mine, asked)) == [whole[s["__row"]] for s in asked]
    for asked in spine[:5]:
        assert bits(pit.join(view, events, [asked])) == [whole[asked["__row"]]]


@each_view
@pytest.mark.parametrize(("module", "name"), [(point_in_time, "_LONGEST_LINE"), (entity_codes, "_DENSE")])
@given(seed=SEEDS)
@EACH
def test_numbers_that_do_not_fit(pit, monkeypatch, kind, module, name, seed):
    events, spine = pit.world(seed, corrected=True)
    whole = pit.join(VIEWS[kind](pit), events, spine)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, 3)
        assert bits(pit.join(VIEWS[kind](pit), events, spine)) == bits(whole)


@given(seed=SEEDS, wanted=st.sets(st.integers(0, 56), min_size=1, max_size=4))
@EACH
def test_other_aggregations(pit, seed, wanted):
    events, spine = pit.world(seed)
    names = [name for at, name in enumerate(pit.AGGREGATIONS) if at in wanted]
    views = [
        rp.FeatureView("v", pit.source(), "shop", ["1h"], {n: a for n, a in pit.AGGREGATIONS.items() if n in some})
        for some in (names, pit.AGGREGATIONS)
    ]
    few, all_of_them = (pit.join(view, events, spine) for view in views)
    assert bits(few) == bits(all_of_them.select(few.columns))


def test_no_input_is_changed(pit):
    events, spine = pit.world(3, corrected=True)
    view = VIEWS["windows"](pit)
    frames = pit.event_frame(events).select(point_in_time.event_columns(view)), pit.spine_frame(spine)
    kept = [frame.clone() for frame in frames]
    point_in_time.view_features(view, *frames, threads=2)
    assert all(frame.equals(before) for frame, before in zip(frames, kept, strict=True))

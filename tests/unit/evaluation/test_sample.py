"""Which test rows an analysis looks at."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from raypipe.evaluation.sample import evenly, matching, sampled


@pytest.mark.parametrize(("count", "most"), [(0, 5), (1, 5), (5, 5), (6, 5), (100, 7), (101, 100), (9, 1)])
def test_evenly(count, most):
    places = evenly(count, most).tolist()
    assert len(places) == min(count, most)
    assert places[:1] == [0][:count]
    assert all(0 <= place < count for place in places)
    steps = {after - before for before, after in pairwise(places)}
    assert not steps or max(steps) - min(steps) <= 1
    assert 0 not in steps


def test_a_sample_is_of_whole_groups(tested):
    places = sampled(tested, 40)
    assert 0 < len(places) < tested.rows.height
    assert (np.diff(places) > 0).all()
    if tested.model.group is None:
        assert len(places) == 40
    else:
        inside = set(tested.model.group[places].tolist())
        assert set(np.flatnonzero(np.isin(tested.model.group, list(inside))).tolist()) == set(places.tolist())
        assert len(inside) > 1


def test_rows_where(tested):
    """The test part lies in several files."""
    frames = list(tested.frames())
    assert len(frames) > 1
    rows = pl.concat(frames)
    where = pl.col("in_stock_level") > 3
    found = matching(tested, where)
    assert found.tolist() == [at for at, level in enumerate(rows["in_stock_level"]) if level is not None and level > 3]
    assert matching(tested, None).tolist() == list(range(rows.height))
    for places in (found, found[:0]):
        assert tested.gather(rows.columns, places).equals(rows[places])

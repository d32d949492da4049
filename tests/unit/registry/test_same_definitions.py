"""Which changes of features.py keep a version from being scored with, and which from being served."""

from __future__ import annotations

import json

import pytest

from raypipe.errors import RegistryError
from raypipe.project import load_project
from raypipe.registry.same_definitions import FEATURES, PARTS, require_same_definitions


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        ('windows=["6h", "3d"]', 'windows=["6h", "3d"]', set()),
        ('windows=["6h", "3d"]', 'windows=["6h", "2d"]', {PARTS, FEATURES}),
        ('delay="10m"', 'delay="20m"', {PARTS, FEATURES}),
        ('target=pl.col("bought")', 'target=~pl.col("bought")', {PARTS}),
        ("\nlabel =", '\nstill = rp.Invariance("stock", {"in_stock_level": 1}, within=1)\nlabel =', set()),
    ],
    ids=["nothing", "a window", "a delay", "the label's target", "a behavioural test"],
)
def test_a_change_that_matters_is_refused(shop, tmp_path, old, new, refused):
    trained = load_project(shop(tmp_path / "trained")).definitions
    document = json.loads(json.dumps(trained.document()))  # as a bundle gives it back
    lineage = {"definitions": {"digest": trained.digest(), "document": document}}
    today = load_project(shop(tmp_path / "today", edits=[(old, new)]))
    for parts in (PARTS, FEATURES):
        if parts not in refused:
            require_same_definitions(today, 3, lineage, parts)
            continue
        with pytest.raises(RegistryError, match="has changed since version 3 was trained") as caught:
            require_same_definitions(today, 3, lineage, parts)
        assert caught.value.expected == trained.digest()[:12]

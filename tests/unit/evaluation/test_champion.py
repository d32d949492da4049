"""Whether a champion can be scored on rows that were built from other definitions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raypipe.evaluation.champion import Champion

SHOP = {"name": "at_shop", "kind": "FeatureView", "windows": ["2h"]}
OWN = {
    "sources": [{"name": "deliveries", "clock": ["ordered_at"]}],
    "views": [SHOP],
    "label": {"name": "slow", "target": "minutes > 30"},
}
CHAMPION = Champion(3, "d" * 64, booster=None, transforms=SimpleNamespace(classes=None), definitions=OWN)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"views": [{"name": "new"}, SHOP], "sources": [*OWN["sources"], {"name": "weather"}]}, None),
        ({"views": []}, "view at_shop is gone"),
        ({"views": [SHOP | {"windows": ["3h"]}]}, "view at_shop has changed"),
        ({"sources": [{"name": "deliveries", "clock": ["settled_at"]}]}, "source deliveries has changed"),
        ({"label": OWN["label"] | {"target": "minutes > 20"}}, "the label has changed"),
    ],
)
def test_what_of_its_own_has_changed(changes, why):
    assert CHAMPION.why_not(OWN | changes, SimpleNamespace(classes=None)) == why


def test_other_classes_cannot_be_compared():
    assert CHAMPION.why_not(OWN, SimpleNamespace(classes=("a", "b"))) == "the classes have changed"

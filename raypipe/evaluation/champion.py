"""The model that serves, as the one to be compared with on the same test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import xgboost as xgb

from raypipe.evaluation.metrics import Floats
from raypipe.features.score import score
from raypipe.features.transforms import Transforms

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Champion:
    """A registered version with its model; definitions: the document of those that it was trained with."""

    version: int
    digest: str
    booster: xgb.Booster
    transforms: Transforms
    definitions: Document

    def score(self, frame: pl.DataFrame) -> Floats:
        """Of test rows, as `raypipe.features.score` gives them."""
        return score(self.booster, self.transforms, frame)

    def why_not(self, definitions: Document, transforms: Transforms) -> str | None:
        """Why it cannot be scored on rows that were built from other `definitions`: what of its own has changed there;
        None if all is as it was. What was added does not matter to it."""
        for kind in ("sources", "views"):
            now = {one["name"]: one for one in definitions[kind]}
            for one in self.definitions[kind]:
                if one["name"] not in now:
                    return f"{kind[:-1]} {one['name']} is gone"
                if one != now[one["name"]]:
                    return f"{kind[:-1]} {one['name']} has changed"
        if self.definitions["label"] != definitions["label"]:
            return "the label has changed"
        return None if self.transforms.classes == transforms.classes else "the classes have changed"

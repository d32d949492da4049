"""What a user declares: sources, feature views, aggregations, a label, tests. Pure; needs Polars only."""

from raypipe.definitions.aggregations import (
    Aggregation,
    count,
    first,
    last,
    max,
    mean,
    min,
    n_unique,
    quantile,
    std,
    sum,
    var,
)
from raypipe.definitions.behaviour import Behaviour, Direction, Invariance, MinimumFunctionality
from raypipe.definitions.catalogue import Definitions
from raypipe.definitions.label import Label
from raypipe.definitions.source import Source
from raypipe.definitions.views import DerivedView, FeatureView, LatestView, RequestView, View

__all__ = [
    "Aggregation",
    "Behaviour",
    "Definitions",
    "DerivedView",
    "Direction",
    "FeatureView",
    "Invariance",
    "Label",
    "LatestView",
    "MinimumFunctionality",
    "RequestView",
    "Source",
    "View",
    "count",
    "first",
    "last",
    "max",
    "mean",
    "min",
    "n_unique",
    "quantile",
    "std",
    "sum",
    "var",
]

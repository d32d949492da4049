"""raypipe: from Parquet tables to a monitored prediction endpoint, on one Ray cluster.

The names below are what a project's features.py uses. They are loaded when first used, so that
`raypipe --help` does not wait for Polars; nothing here needs Ray or XGBoost.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raypipe.definitions import (
        Aggregation,
        DerivedView,
        Direction,
        FeatureView,
        Invariance,
        Label,
        LatestView,
        MinimumFunctionality,
        RequestView,
        Source,
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

__version__ = "0.3.0"

__all__ = [
    "Aggregation",
    "DerivedView",
    "Direction",
    "FeatureView",
    "Invariance",
    "Label",
    "LatestView",
    "MinimumFunctionality",
    "RequestView",
    "Source",
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'raypipe' has no attribute '{name}'")
    from raypipe import definitions

    return getattr(definitions, name)

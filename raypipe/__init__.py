"""raypipe: from Parquet tables to a monitored prediction endpoint, on one Ray cluster.

The names below are what a project's features.py uses, and `Client`, which asks a running endpoint. They are loaded
when first used, so that `raypipe --help` does not wait for Polars; nothing here needs Ray or XGBoost.
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
    from raypipe.serving.client import Client

__version__ = "0.4.0"

__all__ = [
    "Aggregation",
    "Client",
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
    if name == "Client":
        from raypipe.serving.client import Client

        return Client
    from raypipe import definitions

    return getattr(definitions, name)

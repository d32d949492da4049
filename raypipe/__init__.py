"""raypipe: from Parquet tables to a monitored prediction endpoint, on one Ray cluster.

The names below are what a project's features.py uses. Importing them needs neither Ray nor XGBoost.
"""

from raypipe.definitions import (
    Aggregation,
    FeatureView,
    Label,
    LatestView,
    RequestView,
    Source,
    count,
    first,
    last,
    max,
    mean,
    min,
    sum,
)

__version__ = "0.1.0"

__all__ = [
    "Aggregation",
    "FeatureView",
    "Label",
    "LatestView",
    "RequestView",
    "Source",
    "count",
    "first",
    "last",
    "max",
    "mean",
    "min",
    "sum",
]

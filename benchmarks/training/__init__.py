"""Boosted trees: `raypipe train` beside xgboost alone and beside xgboost.dask, on the same training set."""

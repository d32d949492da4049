"""Importing this imports XGBoost without scikit-learn: for modules that are loaded first in a process of their own."""

from raypipe.training.lean_import import import_xgboost

import_xgboost()

"""The search for better XGBoost parameters: space, folds, trials, Ray Tune, choice and report."""

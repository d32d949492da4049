"""Names of metrics and baselines, as rules and reports use them. Imports nothing heavy."""

METRICS = ("roc_auc", "log_loss", "average_precision", "brier", "calibration_error")
BASELINES = ("base_rate", "logistic_regression")

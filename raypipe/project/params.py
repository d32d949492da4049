"""The parameters of XGBoost that project.yaml may set."""

# Parameters of XGBoost's gbtree with `hist`, and of its objectives, that may be set. The ones of
# https://xgboost.readthedocs.io/en/release_3.2.0/parameter.html that are missing are set by raypipe, mean other tree
# methods or devices, or carry state that a checkpoint does not hold (lambdarank_unbiased).
PARAMS = (
    "eta",
    "learning_rate",
    "gamma",
    "min_split_loss",
    "max_depth",
    "min_child_weight",
    "max_delta_step",
    "subsample",
    "colsample_bytree",
    "colsample_bylevel",
    "colsample_bynode",
    "lambda",
    "reg_lambda",
    "alpha",
    "reg_alpha",
    "scale_pos_weight",
    "grow_policy",
    "max_leaves",
    "max_bin",
    "num_parallel_tree",
    "max_cat_to_onehot",
    "max_cat_threshold",
    "max_cached_hist_node",
    "base_score",
    "tweedie_variance_power",
    "huber_slope",
    "quantile_alpha",
    "lambdarank_num_pair_per_sample",
    "lambdarank_normalization",
    "ndcg_exp_gain",
)
ALIASES = {"learning_rate": "eta", "min_split_loss": "gamma", "reg_lambda": "lambda", "reg_alpha": "alpha"}


def canonical(name: str) -> str:
    """The one name of a parameter that XGBoost knows by two."""
    return ALIASES.get(name, name)

"""Labels of each task in the training set: what its files hold, what its manifest counts, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import orjson
import polars as pl
import pytest

from raypipe.errors import ConfigurationError, DataError, NotEnoughDataError
from raypipe.features.training_set import build_training_set, plan_training_set
from raypipe.features.transforms import Transforms
from raypipe.features.transforms_fit import fit
from raypipe.project import load_project
from raypipe.project.transform_settings import TransformSettings

PARTS = ("train", "validation", "test")
TEST = datetime(2024, 1, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def built(shop_of, prepared, tmp_path_factory):
    """The training set of a task, built once."""
    found = {}

    def of(task: str):
        if task not in found:
            made = prepared(shop_of(task, tmp_path_factory.mktemp(task)))
            found[task] = build_training_set(made.project, made.sources, "local")
        return found[task]

    return of


def rows(training_set, *parts: str) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(f) for part in parts or PARTS for f in training_set.files(part)]).sort("__row")


def visits_of(frame: pl.DataFrame, tables) -> list[dict]:
    """The visit that each row was made of."""
    visits = tables["visits"].to_dicts()
    return [visits[row % (1 << 27)] for row in frame["__row"]]


def grade(amount: float) -> str:
    return "small" if amount <= 33 else "medium" if amount <= 66 else "large"


# ---- what the files hold -----------------------------------------------------------------------


def test_binary_with_weight_and_margin(built, tables, same):
    frame = rows(built("binary"))
    visits = visits_of(frame, tables)
    assert frame["label"].to_list() == [v["bought"] for v in visits]
    weights = [(1 if v["amount"] is None else v["amount"]) / 50 for v in visits]
    same(frame["weight"].to_list(), weights, [2] * len(weights))
    same(frame["base_margin"].to_list(), [v["at"].hour / 10 for v in visits], [2] * len(visits))
    assert frame.columns[-3:] == ["label", "weight", "base_margin"]


def test_multiclass(built, tables):
    frame = rows(built("multiclass"))
    assert frame["label"].cast(pl.String).to_list() == [grade(v["amount"]) for v in visits_of(frame, tables)]


def test_regression(built, tables, same):
    frame = rows(built("regression"))
    visits = visits_of(frame, tables)
    assert (frame.schema["label"], frame.schema["base_margin"]) == (pl.Float64, pl.Float64)
    same(frame["label"].to_list(), [v["amount"] for v in visits])
    same(frame["base_margin"].to_list(), [2 * (v["at"] - timedelta(minutes=30)).hour for v in visits])


def test_ranking(built, tables):
    frame = rows(built("ranking"))
    visits = visits_of(frame, tables)
    assert frame["label"].to_list() == [int(v["amount"] / 25) for v in visits]
    assert frame["group"].to_list() == [v["at"].date() for v in visits]
    assert frame["weight"].to_list() == [v["at"].day for v in visits]


def test_a_label_that_declares_nothing_adds_no_column(shop, prepared, tmp_path):
    made = prepared(shop(tmp_path))
    assert rows(build_training_set(made.project, made.sources, "local")).columns[-1] == "label"


# ---- what the manifest counts ------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "ranking"])
def test_counts(built, task):
    training_set = built(task)
    for part in PARTS:
        frame, told = rows(training_set, part), training_set.manifest["parts"][part]
        labels = frame["label"].to_list()
        expected = {
            "binary": {"positive_share": sum(map(bool, labels)) / len(labels)} if task == "binary" else {},
            "multiclass": {"classes": len(set(labels))},
            "regression": {"mean": pytest.approx(sum(labels) / len(labels))} if task == "regression" else {},
            "ranking": {"groups": frame["group"].n_unique()} if task == "ranking" else {},
        }[task]
        assert told == {"rows": frame.height, **expected}
    labels = [str(label).lower() for label in rows(training_set, "train")["label"]]
    counted = {name: labels.count(name) for name in sorted(set(labels))}
    assert training_set.manifest["class_counts"] == (counted if task in ("binary", "multiclass") else None)


# ---- what is refused ---------------------------------------------------------------------------


def refusal(error, shop_of, prepared, folder, task, label=None, **changes):
    made = prepared(shop_of(task, folder, label, **changes))
    with pytest.raises(error) as caught:
        plan_training_set(made.project, made.sources)
    return caught.value


def visit_7(value: str) -> str:
    return f'pl.when(pl.col("visit") == 7).then({value}).otherwise(pl.lit(1.0))'


@pytest.mark.parametrize("value", ["None", "-0.5", "pl.lit(float('nan'))", "pl.lit(float('inf'))", "pl.lit(1e39)"])
def test_weights_that_cannot_be(shop_of, prepared, tables, tmp_path, value):
    bought = pl.when(pl.col("visit") == 7).then(pl.lit(value=True)).otherwise("bought").alias("bought")
    label = f'target=pl.col("bought"), weight={visit_7(value)}'
    error = refusal(DataError, shop_of, prepared, tmp_path, "binary", label, tables={"visits": [bought]})
    assert error.what == "1 weights that are missing, negative or not finite in train"


def test_a_row_without_a_label_needs_no_weight(shop_of, prepared, tmp_path):
    bought = pl.when(pl.col("visit") != 7).then("bought").alias("bought")
    label = f'target=pl.col("bought"), weight={visit_7("None")}'
    made = prepared(shop_of("binary", tmp_path, label, tables={"visits": [bought]}))
    assert plan_training_set(made.project, made.sources).survey.counts["train"]["weight"] > 0


def test_a_part_that_weighs_nothing(shop_of, prepared, tmp_path):
    label = 'target=pl.col("bought"), weight=(pl.col("at") < pl.datetime(2024, 1, 25, time_zone="UTC")).cast(pl.Int8)'
    error = refusal(NotEnoughDataError, shop_of, prepared, tmp_path, "binary", label)
    assert error.what.endswith("rows of test are 0")


@pytest.mark.parametrize("value", ["None", "pl.lit(float('nan'))", "pl.lit(float('inf'))"])
def test_base_margins_that_cannot_be(shop_of, prepared, tmp_path, value):
    margin = f'pl.when(pl.col("user") == "u3").then({value}).otherwise(pl.lit(1.0))'
    label = f'task="regression", target=pl.col("amount"), base_margin={margin}'
    error = refusal(DataError, shop_of, prepared, tmp_path, "regression", label)
    assert "base margins that are missing or not finite in train" in error.what


def test_a_row_without_a_group(shop_of, prepared, tmp_path):
    label = 'task="ranking", target=pl.col("amount").cast(pl.Int32) // 25, group="user"'
    error = refusal(DataError, shop_of, prepared, tmp_path, "ranking", label)
    assert "rows without a group in train" in error.what


@pytest.mark.parametrize("relevance", [-1, 32])
def test_relevances_that_cannot_be(shop_of, prepared, tmp_path, relevance):
    label = f'task="ranking", target=pl.col("visit") % 30 + {relevance if relevance < 0 else 3}, group="shop"'
    error = refusal(DataError, shop_of, prepared, tmp_path, "ranking", label)
    assert "relevances that are not from 0 to 31 in train" in error.what


def test_groups_of_two_weights(shop_of, prepared, tmp_path):
    label = 'task="ranking", target=pl.col("visit") % 3, group="shop", weight=pl.col("at").dt.day()'
    error = refusal(DataError, shop_of, prepared, tmp_path, "ranking", label)
    assert error.what == "4 groups of train have rows of different weights"


def test_infinite_numbers_are_refused_and_nan_is_unknown(shop_of, prepared, tables, tmp_path):
    label = 'task="regression", target=pl.when(pl.col("visit") == 7).then({}).otherwise("amount")'
    amount = pl.col("amount").fill_null(1)
    for name, value in (("inf", "float('inf')"), ("big", "1e39")):
        found = refusal(
            DataError, shop_of, prepared, tmp_path / name, "regression", label.format(f"pl.lit({value})"),
            tables={"visits": [amount]},
        )  # fmt: skip
        assert found.what == "1 labels that are not finite in train"
    folder = shop_of("regression", tmp_path / "nan", label.format("pl.lit(float('nan'))"), tables={"visits": [amount]})
    made = prepared(folder)
    counts = plan_training_set(made.project, made.sources).survey.counts
    assert sum(count["unlabelled"] for count in counts.values()) == 1


def test_a_class_that_training_lacks(shop_of, prepared, tables, tmp_path):
    when = 'pl.when((pl.col("at") > pl.datetime(2024, 1, 31, time_zone="UTC")) & (pl.col("shop") == "a"))'
    label = f'task="multiclass", target={when}.then(pl.lit("new")).otherwise("shop")'
    error = refusal(NotEnoughDataError, shop_of, prepared, tmp_path, "multiclass", label)
    new = [v for v in tables["visits"].iter_rows(named=True) if v["at"] > TEST + timedelta(days=1) and v["shop"] == "a"]
    assert (error.what, error.got) == ("1 classes of test do not occur in training", f"'new' ({len(new)} rows)")


@pytest.mark.parametrize(
    ("task", "label", "what"),
    [
        ("multiclass", 'task="multiclass", target=pl.col("visit") * 0', "labels of train are the same"),
        ("regression", 'task="regression", target=pl.col("visit") * 0.0 + 3', "labels of train are the same"),
        ("ranking", 'task="ranking", target=pl.col("visit") % 4, group=pl.col("at")', "no group of train has two"),
    ],
)
def test_nothing_to_learn(shop_of, prepared, tmp_path, task, label, what):
    assert what in refusal(NotEnoughDataError, shop_of, prepared, tmp_path, task, label).what


@pytest.mark.parametrize("task", ["multiclass", "ranking"])
def test_no_target_encoding_without_a_mean(shop_of, tmp_path, task):
    folder = shop_of(task, tmp_path, settings={"transforms.features": {"ask_shop": {"target_encode": {}}}})
    with pytest.raises(ConfigurationError, match="which this task has none of"):
        load_project(folder)


# ---- transforms --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "labels", "classes"),
    [
        (pl.String, ["b", "a", "b", "c"], ("a", "b", "c")),
        (pl.Enum(["c", "b", "a"]), ["b", "a", "b", "c"], ("a", "b", "c")),
        (pl.Categorical, ["b", "a", "b", "c"], ("a", "b", "c")),
        (pl.Int16, [7, -2, 7, 10], (-2, 7, 10)),
        (pl.UInt64, [7, 2, 7, 2**64 - 1], (2, 7, 2**64 - 1)),
    ],
)
def test_classes_are_learned_in_ascending_order(dtype, labels, classes):
    frame = pl.DataFrame({"label": pl.Series(labels, dtype=dtype)})
    transforms = fit({}, frame.lazy(), TransformSettings(), "multiclass")
    assert transforms.classes == classes
    again = Transforms.from_json(orjson.loads(orjson.dumps(transforms.to_json())))
    assert again == transforms
    got = again.labels(frame)
    assert (got.dtype, got.tolist()) == (np.float32, [1, 0, 1, 2])


@pytest.mark.parametrize(
    ("task", "labels"), [("binary", [True, False]), ("regression", [0.1, -3.0]), ("ranking", [3, 0])]
)
def test_other_labels_are_numbers(task, labels):
    frame = pl.DataFrame({"label": labels})
    transforms = fit({}, frame.lazy(), TransformSettings(), task)
    assert (transforms.classes, transforms.labels(frame).tolist()) == (None, np.float32(labels).tolist())


def test_the_classes_are_those_of_training(built):
    assert built("multiclass").transforms().classes == ("large", "medium", "small")
    assert built("ranking").transforms().classes is None


def regression_rows(labels: list[float]) -> pl.DataFrame:
    times = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(len(labels))]
    return pl.DataFrame(
        {
            "x": ["ab"[i % 2] for i in range(len(labels))],
            "prediction_time": times,
            "label_known_time": times,
            "label": labels,
        }
    )


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30, 5e-324])
def test_target_encoding_of_numbers_is_their_mean(scale):
    """Against fractions; the same bits in any order of the rows."""
    numbers = [3.5, -1.25, 1e9, 0.1, -7e-5, 12, 0.3, -1e9, 2.5, 8]
    frame = regression_rows([n * scale for n in numbers])
    settings = TransformSettings(features={"x": {"target_encode": {"blocks": 2, "smoothing": 1.5}}})
    learned = fit({"x": pl.String()}, frame.lazy(), settings, "regression")
    shuffled = fit({"x": pl.String()}, frame.sample(fraction=1, shuffle=True, seed=3).lazy(), settings, "regression")
    assert learned == shuffled
    exact = [Fraction(n) for n in frame["label"]]
    prior = sum(exact) / len(exact)
    expected = [(sum(exact[at::2]) + Fraction(1.5) * prior) / (Fraction(5) + Fraction(1.5)) for at in (0, 1)]
    allowed = max(1e-15 * float(max(map(abs, exact))), 1e-290)
    got = learned.features["x"].encoding.final
    assert got == pytest.approx([*map(float, expected), float(prior)], abs=allowed, rel=1e-15)
    first = exact[:5]
    prior, mine = sum(first) / 5, first[::2]
    assert learned.features["x"].encoding.blocks[1][0] == pytest.approx(
        float((sum(mine) + Fraction(1.5) * prior) / (3 + Fraction(1.5))), abs=allowed, rel=1e-15
    )

"""Only the training split's rows are encoded by what was known at their time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from sklearn.metrics import log_loss

from raypipe.evaluation import baselines
from raypipe.features.transforms import Category, Number, Transforms
from raypipe.features.transforms_fit import fit
from raypipe.project.transform_settings import TransformSettings
from raypipe.training import matrix
from raypipe.training.matrix import Batches, estimated_bytes, frames_of, matrix_of, ranked_frames
from raypipe.training.shares import FileRows

ROWS, BLOCKS = 80, 4


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Each row has a category of its own, so that its label follows from an encoding that has seen it, and from
    nothing else: when a block begins, as many labels are known to be true as false."""
    times = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(ROWS)]
    rows = {
        "x": [f"{i:03}" for i in range(ROWS)],
        "prediction_time": times,
        "label_known_time": [t + timedelta(seconds=1) for t in times],
        "label": [i % 2 == 0 for i in range(ROWS)],
    }
    frame = pl.DataFrame(
        rows, schema_overrides=dict.fromkeys(["prediction_time", "label_known_time"], pl.Datetime("us", "UTC"))
    )
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"train-{i}.parquet" for i in range(2)]
    for i, path in enumerate(paths):
        frame[i * ROWS // 2 : (i + 1) * ROWS // 2].write_parquet(path)
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def transforms(files) -> Transforms:
    settings = TransformSettings(features={"x": {"target_encode": {"blocks": BLOCKS, "smoothing": 0}}})
    return fit({"x": pl.String()}, pl.scan_parquet(files), settings)


def of(files, transforms, ref=None, **more) -> xgb.QuantileDMatrix:
    """A matrix of all rows of the files; without `ref`, as of the training split."""
    share = [FileRows(path, 0, pl.scan_parquet(path).select(pl.len()).collect().item()) for path in files]
    cache = more.pop("cache", None)
    batches = Batches(frames_of(share, transforms), transforms, training=ref is None, cache=cache, **more)
    return matrix_of(batches, threads=1, max_bin=256, ref=ref, external=cache is not None)


def test_training_learns_nothing_from_a_label_s_own_encoding(files, transforms):
    rows = of(files, transforms)
    model = xgb.train({"objective": "binary:logistic", "min_child_weight": 0, "base_score": 0.5}, rows, 5)
    assert log_loss(rows.get_label(), model.predict(rows)) == pytest.approx(np.log(2))


def test_only_training_lacks_the_first_block(files, transforms):
    """As validation, the same rows get the whole training split's encoding, and none is missing."""
    rows = of(files, transforms)
    validation = of(files, transforms, rows)
    assert (rows.get_data().nnz, validation.get_data().nnz) == (ROWS - ROWS // BLOCKS, ROWS)


def test_the_logistic_regression_too(files, transforms):
    model = baselines.logistic_regression(files, transforms, seed=0)
    frame = pl.read_parquet(files)
    assert baselines.predict(model, transforms.matrix(frame)) == pytest.approx(0.5)


# ---- numbers, weights, groups and external memory ----------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> SimpleNamespace:
    """5,000 rows of three numbers with gaps, in files of several row groups, with all that may stand beside a label."""
    rng = np.random.default_rng(1)
    count = 5000
    frame = pl.DataFrame({
        "a": rng.standard_normal(count), "b": rng.integers(-9, 9, count), "c": rng.random(count) > 0.5,
        "unused": ["x"] * count,
        "label": rng.integers(0, 3, count), "weight": rng.random(count), "base_margin": rng.standard_normal(count),
        "group": rng.integers(0, 40, count),
    }).with_columns(pl.when(pl.col("b") > 5).then(None).otherwise(pl.col("b")).alias("b"))  # fmt: skip
    folder = tmp_path_factory.mktemp("plain")
    share, at = [], 0
    for i, rows in enumerate((1700, 1, 3299)):
        frame[at : at + rows].write_parquet(folder / f"{i}.parquet", row_group_size=500)
        share.append(FileRows(str(folder / f"{i}.parquet"), 0, rows))
        at += rows
    return SimpleNamespace(frame=frame, share=share, transforms=Transforms({n: Number() for n in "abc"}))


def cells(matrix_: xgb.QuantileDMatrix) -> np.ndarray:
    """What the matrix holds, with the bins' bounds in place of the values."""
    return matrix_.get_data().toarray()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("batch", [100, 3000, 10**7])
def test_batches_of_any_size_make_the_same_matrix(plain, monkeypatch, batch, keep):
    frame = plain.frame.drop("group")
    monkeypatch.setattr(matrix, "BATCH_CELLS", batch)
    frames = frames_of(plain.share, plain.transforms)
    assert max(f.height for f in frames()) <= max(batch // 3, 1)
    assert pl.concat(frames()).select("a", "b", "c", "label").equals(frame.select("a", "b", "c", "label"))
    batches = Batches(classes_alone(frames), plain.transforms, training=True, keep=keep)
    made = matrix_of(batches, threads=1, max_bin=256)
    assert batches.kept is None
    x, weight = frame.select(pl.col("a", "b", "c").cast(pl.Float32)).to_numpy(), frame["weight"].to_numpy()
    expected = xgb.QuantileDMatrix(x, weight=weight, max_bin=256)  # weights move the bins' bounds
    assert np.array_equal(cells(made), cells(expected))
    assert made.get_label().tolist() == frame["label"].to_list()
    assert made.get_weight() == pytest.approx(frame["weight"].to_numpy())


def classes_alone(frames):
    # a group would make it a ranking, and a multiclass label has no base margin
    return lambda: (frame.drop("group", "base_margin") for frame in frames())


def test_a_row_group_is_decoded_once(plain, monkeypatch):
    """Batches end where row groups of 500 rows do, though not every file's do."""
    monkeypatch.setattr(matrix, "BATCH_CELLS", 3 * 1100)
    assert [f.height for f in frames_of(plain.share, plain.transforms)()] == [1000, 701, 1000, 1000, 1000, 299]


def test_pages_of_external_memory_are_larger(plain, monkeypatch):
    monkeypatch.setattr(matrix, "BATCH_CELLS", 3 * 1100)
    monkeypatch.setattr(matrix, "PAGE_CELLS", 3 * 2600)
    assert [f.height for f in frames_of(plain.share, plain.transforms, external=True)()] == [2201, 2500, 299]


def test_a_stretch_of_a_file_is_read_alone(plain):
    share = [FileRows(plain.share[0].path, 1200, 1700), plain.share[1], FileRows(plain.share[2].path, 0, 777)]
    assert pl.concat(frames_of(share, plain.transforms)())["a"].equals(plain.frame["a"][1200:2478])


def test_class_weights_multiply_the_rows_weights_in_training_alone(plain):
    frames = classes_alone(frames_of(plain.share, plain.transforms))
    weights = [1.0, 2.0, 4.0]
    train = matrix_of(Batches(frames, plain.transforms, training=True, class_weights=weights), threads=1, max_bin=256)
    other = Batches(frames, plain.transforms, training=False, class_weights=weights)
    expected = plain.frame["weight"] * plain.frame["label"].replace_strict([0, 1, 2], weights)
    assert train.get_weight() == pytest.approx(expected.to_numpy())
    assert matrix_of(other, threads=1, max_bin=256, ref=train).get_weight() == pytest.approx(
        plain.frame["weight"].to_numpy()
    )


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_rank_of_a_ranking_has_whole_groups(plain, workers):
    """Together the ranks have every row; a group's rows stand together; its weight is one."""
    frame = plain.frame.with_columns(pl.col("group").cast(pl.Float64).alias("weight"))
    path = Path(plain.share[0].path).with_name("ranked.parquet")
    frame.write_parquet(path)
    seen = []
    for rank in range(workers):
        frames = ranked_frames([FileRows(str(path), 0, frame.height)], plain.transforms, rank, workers)
        [mine] = frames()
        assert mine["group"].is_sorted()
        made = matrix_of(Batches(frames, plain.transforms, training=True), threads=1, max_bin=256)
        assert np.diff(made.get_uint_info("group_ptr")).tolist() == mine["group"].rle().struct.field("len").to_list()
        assert made.get_weight().tolist() == mine["weight"].unique(maintain_order=True).to_list()
        seen.append(mine)
    assert sum(m["group"].n_unique() for m in seen) == 40
    both = pl.concat(seen).select("a", "b", "c", "label", "weight")
    assert both.sort("a", "weight").equals(frame.select("a", "b", "c", "label", "weight").sort("a", "weight"))


def test_external_memory_grows_the_same_trees(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "BATCH_CELLS", 1500)
    frames = classes_alone(frames_of(plain.share, plain.transforms))
    dumps = []
    for cache in (None, str(tmp_path / "pages")):
        train = matrix_of(
            Batches(frames, plain.transforms, training=True, cache=cache), threads=1, max_bin=64, external=bool(cache)
        )
        params = {
            "objective": "multi:softprob",
            "num_class": 3,
            "max_bin": 64,
            "subsample": 0.8,
            "nthread": 1,
            "seed": 1,
        }
        booster = xgb.Booster(params, [train])
        for i in range(5):
            booster.update(train, i)
        dumps.append(booster.get_dump(with_stats=True))
        del train
    assert dumps[0] == dumps[1]


def test_the_estimate_grows_with_rows_features_and_classes():
    assert estimated_bytes(5_000_000, 30) > 150_000_000 * 5
    assert estimated_bytes(10, 3, classes=5) > estimated_bytes(10, 3)


def test_the_base_margin_goes_in(plain):
    frames = frames_of(plain.share, plain.transforms)
    without = Batches(lambda: (f.drop("group") for f in frames()), plain.transforms, training=True)
    made = matrix_of(without, threads=1, max_bin=256)
    assert made.get_base_margin() == pytest.approx(plain.frame["base_margin"].to_numpy())


@pytest.mark.parametrize("external", [False, True])
def test_validation_is_predicted_as_rows_are_served(tmp_path, external):
    """Categories that training lacks too: by the bins of train they would be taken for the last one it has."""
    rng = np.random.default_rng(5)
    frame = pl.DataFrame({"k": rng.integers(0, 9, 900).astype(str), "v": rng.standard_normal(900)})
    frame = frame.with_columns(label=(pl.col("k").cast(pl.Int32) % 2 == 0) ^ (pl.col("v") > 0))
    known = frame.filter(pl.col("k") < "7")
    for name, rows in (("train", known), ("validation", frame)):
        rows.write_parquet(tmp_path / f"{name}.parquet")
    features = Transforms({"k": Category({str(i): i for i in range(7)}), "v": Number()})
    train = of([str(tmp_path / "train.parquet")], features)
    cache = str(tmp_path / "pages") if external else None
    validation = of([str(tmp_path / "validation.parquet")], features, train, cache=cache)
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 4}, train, 20)
    assert np.array_equal(booster.predict(validation), booster.inplace_predict(features.matrix(frame)))

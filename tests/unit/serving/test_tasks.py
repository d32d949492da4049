"""From a training set to an answer, for each task: what evaluation measures and serving answers is what Booster.predict
gives. The boosters are trained here, without Ray; no replica is needed to answer."""

from __future__ import annotations

import copy
import io
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import orjson
import polars as pl
import pytest
import xgboost as xgb
from sklearn.metrics import log_loss, mean_absolute_error, roc_auc_score

from raypipe.cli import words
from raypipe.errors import RequestError
from raypipe.evaluation.evaluate import SCORES, evaluate
from raypipe.evaluation.names import BASELINES, METRICS
from raypipe.evaluation.report_words import interval
from raypipe.features.online_build import build_online_state
from raypipe.features.serving_spec import serving_spec
from raypipe.features.training_set import build_training_set
from raypipe.registry.bundle import LINEAGE, MODEL, SERVING, TRANSFORMS, write_bundle
from raypipe.registry.bundle import METRICS as METRICS_FILE
from raypipe.serving.call import ARROW, Call
from raypipe.serving.endpoint import Endpoint, Limits
from raypipe.serving.model import LoadedModel
from raypipe.serving.routes import answer
from raypipe.serving.rows import read_rows
from raypipe.serving.together import alone
from raypipe.serving.traffic import Traffic

OBJECTIVE = {
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    "regression": "reg:squarederror",
    "ranking": "rank:ndcg",
}
AS_OF = datetime(2024, 2, 8, tzinfo=UTC)
ROWS = [
    {"at": "2024-02-08T03:10:00Z", "user": "u3", "shop": "a"},
    {"at": "2024-02-08T17:40:00Z", "user": None, "shop": "d"},
    {"at": "2024-02-08T23:00:00Z", "user": "u9", "shop": "b"},
]


def dmatrix(transforms, frame: pl.DataFrame, *, training: bool = False) -> xgb.DMatrix:
    matrix = xgb.DMatrix(
        transforms.matrix(frame, training=training),
        transforms.labels(frame) if "label" in frame.columns else None,
        feature_names=transforms.names,
        feature_types=transforms.feature_types,
        enable_categorical=True,
    )
    if "base_margin" in frame.columns:
        matrix.set_base_margin(frame["base_margin"].to_numpy())
    if "group" in frame.columns:
        matrix.set_group(frame.group_by("group", maintain_order=True).len()["len"].to_numpy())
    return matrix


def booster_of(task: str, training_set) -> xgb.Booster:
    transforms, frame = training_set.transforms(), pl.read_parquet(training_set.files("train"))
    frame = frame.sort("group") if task == "ranking" else frame
    classes = {"num_class": len(transforms.classes)} if transforms.classes else {}
    params = {"objective": OBJECTIVE[task], "max_depth": 3, "seed": 1, "nthread": 1, **classes}
    return xgb.train(params, dmatrix(transforms, frame, training=True), 8)


@pytest.fixture(scope="module", params=list(METRICS))
def made(request, shop_of, prepared, tmp_path_factory) -> SimpleNamespace:
    task, folder = request.param, tmp_path_factory.mktemp(request.param)
    settings = {"evaluation.slices": ["shop"], "evaluation.slice_min_rows": 5}
    found = prepared(shop_of(task, folder, settings=settings))
    training_set = build_training_set(found.project, found.sources, "local")
    booster = booster_of(task, training_set)
    booster.save_model(folder / MODEL)
    learned = {"metric": "m", "history": [1.0, 0.9, 0.8], "curve": [(1, 1.0)], "best_round": 2}
    run = {"digest": "0" * 64, "rounds": 8, "workers": 1, **learned}
    evaluation = evaluate(found.project, training_set, folder / MODEL, run)
    state = build_online_state(found.project, found.sources, AS_OF)
    documents = {
        TRANSFORMS: training_set.transforms().to_json(),
        SERVING: serving_spec(found.project.definitions).to_json(),
        METRICS_FILE: evaluation.result,
        LINEAGE: {},
    }
    files = {name: orjson.dumps(document) for name, document in documents.items()}
    digest, uri = write_bundle(folder / "bundles", files | {MODEL: (folder / MODEL).read_bytes()})
    pointer = {"bundle": uri, "digest": digest, "online": str(state.folder), "online_identity": state.identity}
    model = LoadedModel("1", pointer, max_past_us=10**12)
    return SimpleNamespace(
        task=task, training_set=training_set, booster=booster, evaluation=evaluation, model=model,
        endpoint=Endpoint("shop", {"1": model}, Traffic("1", {}), Limits(100, 10**6)), transforms=training_set.transforms(),
    )  # fmt: skip


# ---- evaluation --------------------------------------------------------------------------------


def test_scores_are_those_of_booster_predict(made):
    test = pl.read_parquet(made.training_set.files("test"))
    scores = pl.read_parquet(made.evaluation.output.path(SCORES))
    assert scores["__row"].to_list() == test["__row"].to_list()
    expected = made.booster.predict(dmatrix(made.transforms, test))
    np.testing.assert_allclose(scores["score"].to_numpy(), expected, rtol=1e-6)


def test_the_margin_has_a_part_in_them(made):
    """Without it the scores would be others, so the test above says something."""
    test = pl.read_parquet(made.training_set.files("test"))
    if made.task not in ("binary", "regression"):
        assert "base_margin" not in test.columns
        return
    without = made.booster.predict(dmatrix(made.transforms, test.drop("base_margin")))
    scores = pl.read_parquet(made.evaluation.output.path(SCORES))["score"].to_numpy()
    assert np.abs(scores - without).min() > 1e-4


def test_figures_are_scikit_learns_by_weight(made):
    scores = pl.read_parquet(made.evaluation.output.path(SCORES))
    label, score = made.transforms.labels(scores), scores["score"].to_numpy().astype(np.float64)
    weight = scores["weight"].to_numpy() if "weight" in scores.columns else None
    got = made.evaluation.metrics
    if made.task == "binary":
        assert got["roc_auc"] == pytest.approx(roc_auc_score(label, score, sample_weight=weight))
        assert got["roc_auc"] != pytest.approx(roc_auc_score(label, score))
    elif made.task == "multiclass":
        score /= score.sum(axis=1, keepdims=True)
        assert got["log_loss"] == pytest.approx(log_loss(label, score, sample_weight=weight))
        assert got["log_loss"] != pytest.approx(log_loss(label, score))
    elif made.task == "regression":
        assert got["mae"] == pytest.approx(mean_absolute_error(label, score))
    else:
        assert 0 < got["ndcg"] <= 1
        assert got["groups"] <= scores["group"].n_unique()


def test_baselines_and_slices_have_the_tasks_metrics(made):
    result, metrics = made.evaluation.result, set(METRICS[made.task])
    assert set(result["baselines"]) == set(BASELINES[made.task])
    for figures in (result["model"], *result["baselines"].values()):
        assert metrics < set(figures)
    assert {s["value"] for s in result["slices"]["shop"]} == {"a", "b", "c", "d"}
    assert sum(s["rows"] for s in result["slices"]["shop"]) == made.training_set.rows("test")
    assert metrics < set(result["slices"]["shop"][0])
    assert (result["calibration"] is not None) == (made.task == "binary")


def test_the_constant_baseline(made):
    train = pl.read_parquet(made.training_set.files("train"))
    test = pl.read_parquet(made.training_set.files("test"))
    got = made.evaluation.result["baselines"][BASELINES[made.task][0]]
    label = made.transforms.labels(test)
    if made.task == "regression":
        assert got["mae"] == pytest.approx(np.abs(test["label"].to_numpy() - train["label"].mean()).mean(), rel=1e-6)
    elif made.task == "ranking":
        assert got["ndcg"] < made.evaluation.result["model"]["ndcg"] + 0.3
    else:
        learned, weight = made.transforms.labels(train), train["weight"].to_numpy()
        shares = np.array([weight[learned == c].sum() for c in range(int(learned.max()) + 1)]) / weight.sum()
        expected = log_loss(label, np.tile(shares, (len(label), 1)), sample_weight=test["weight"].to_numpy())
        assert got["log_loss"] == pytest.approx(expected)


def test_the_report_and_the_lines_show_the_tasks_figures(made):
    page = made.evaluation.report.read_text()
    version = SimpleNamespace(
        model="shop", version=3, aliases=("champion",), verdict="pass", bundle_digest="f" * 64, bundle_uri="file:///b",
        metrics={name: v for name, v in made.evaluation.metrics.items() if name != "rows"},
    )  # fmt: skip
    line, summary = words.versions([version], made.task), "\n".join(words.summary(version, made.evaluation))
    for name in METRICS[made.task][:2]:
        figure = f"{made.evaluation.metrics[name]:.4f}"
        assert interval(made.evaluation.result["intervals"]["model"][name]) in page
        assert figure in line
        assert figure in summary
    assert "roc" not in (line + summary).lower() or "roc_auc" in METRICS[made.task]


def test_a_version_of_another_task_has_blanks(made):
    version = SimpleNamespace(version=3, aliases=(), verdict="pass", bundle_digest="f" * 64, metrics={})
    assert "ffff" in words.versions([version], made.task)


# ---- serving -----------------------------------------------------------------------------------


def post(made, path: str, document) -> dict:
    given = alone(answer(made.endpoint, Call("POST", path, "", {}, orjson.dumps(document), "r", 0)))
    assert given.status == 200
    return orjson.loads(given.body)


def expected_scores(made, *, margins: bool = False) -> np.ndarray:
    """Booster.predict on the features that the online state gives; or the margins, before the link function."""
    online, types = made.model.online, made.model.bundle.serving.schema()
    rows = pl.DataFrame(
        {n: [r[n] for r in ROWS] for n in types if n != "at"} | {"at": [datetime.fromisoformat(r["at"]) for r in ROWS]},
        schema_overrides={"at": types["at"]},
    ).select(list(types))
    with online.snapshot() as known:
        features = known.features(rows, known.feature_times(online.prediction_times(rows)))
    hours = {"binary": [0.3, 1.7, 2.3], "regression": [4.0, 34.0, 44.0]}  # of `at`; twice that of half an hour before
    if made.task in hours:
        features = features.with_columns(pl.Series("base_margin", hours[made.task]))
    return made.booster.predict(dmatrix(made.transforms, features), output_margin=margins)


def test_people_get_rows(made):
    got = post(made, "/models/shop/predict", {"rows": ROWS})["predictions"]
    expected = expected_scores(made)
    name = {"binary": "probability", "regression": "value", "ranking": "score"}.get(made.task)
    for row, score in zip(got, expected, strict=True):
        del row["feature_time"], row["known_entity"]
        if name:
            assert row == {name: pytest.approx(float(score), rel=1e-5)}
        else:
            classes = ["large", "medium", "small"]
            assert row == {
                "class": classes[int(score.argmax())],
                "probabilities": {c: pytest.approx(float(p), rel=1e-5) for c, p in zip(classes, score, strict=True)},
            }


def test_words_of_a_prediction(made):
    got = post(made, "/models/shop/predict", {"rows": ROWS})
    first = got["predictions"][0]
    said = words.prediction(ROWS, got)
    figure = first["probabilities"][first["class"]] if "class" in first else next(iter(first.values()))
    assert f"{figure:.4f}" in said.splitlines()[0]


def test_tensors_are_what_the_metadata_says(made):
    inputs = [
        {"name": n, "datatype": "BYTES", "shape": [3], "data": [row[n] for row in ROWS]} for n in ("at", "user", "shop")
    ]
    outputs = post(made, "/v2/models/shop/infer", {"inputs": inputs})["outputs"]
    told = orjson.loads(alone(answer(made.endpoint, Call("GET", "/v2/models/shop", "", {}, b"", "r", 0))).body)[
        "outputs"
    ]
    assert [(o["name"], o["datatype"]) for o in outputs] == [(t["name"], t["datatype"]) for t in told]
    for output, metadata in zip(outputs, told, strict=True):
        assert output["shape"] == [3, *metadata["shape"][1:]]
        assert len(output["data"]) == np.prod(output["shape"])
    expected = expected_scores(made)
    assert outputs[-1]["data"] == pytest.approx(expected.ravel().tolist(), rel=1e-5)
    if made.task == "multiclass":
        assert told[1]["parameters"] == {"classes": ["large", "medium", "small"]}
        assert outputs[0]["data"] == [["large", "medium", "small"][best] for best in expected.argmax(axis=1)]


# ---- one row at a time and many ----------------------------------------------------------------


def random_rows(count: int) -> list[dict]:
    dice = random.Random(8)
    times = [
        "2024-02-08T03:10:00Z",
        "2024-02-08T17:40:00.5+01:00",
        "2024-02-07T23:59:59Z",
        "2024-02-29T12:00:00Z",
        "2050-07-01T00:00:00Z",
    ]
    users, shops = [*(f"u{n}" for n in range(12)), None, "nobody"], ["a", "b", "c", "d"]
    return [{"at": dice.choice(times), "user": dice.choice(users), "shop": dice.choice(shops)} for _ in range(count)]


def test_a_row_alone_is_answered_as_among_many(made):
    rows = random_rows(60)
    assert made.model.facts["rows"]["compiled"]
    many = made.model.predict(read_rows(made.model.bundle.serving, rows))
    few = [made.model._quick.compute([row]) for row in rows]
    assert None not in few
    bits = np.concatenate([one.matrix for one in few]).view(np.int32)
    np.testing.assert_array_equal(bits, many.matrix.view(np.int32))
    assert np.concatenate([one.feature_time_us for one in few]).tolist() == many.feature_time_us.tolist()
    assert np.concatenate([one.known for one in few]).tolist() == many.known.tolist()
    if many.base_margin is not None:
        assert np.concatenate([one.margins for one in few]).tolist() == many.base_margin.tolist()
    scores = np.concatenate([made.model.predict_rows([row]).scores for row in rows])
    np.testing.assert_array_equal(scores.view(np.int32), many.scores.view(np.int32))


def test_known_says_whether_every_entity_is_known(made):
    at = "2024-02-08T03:10:00Z"
    asked = {("u3", "a"): True, ("nobody", "a"): False, (None, "a"): False}
    rows = [{"at": at, "user": user, "shop": shop} for user, shop in asked]
    expected = list(asked.values())
    assert made.model.predict(read_rows(made.model.bundle.serving, rows)).known.tolist() == expected
    assert [made.model.predict_rows([row]).known.item() for row in rows] == expected


def test_no_row_has_no_prediction(made):
    given = made.model.predict_rows([])
    assert len(given.scores) == len(given.known) == len(given.matrix) == 0


def test_threads_share_a_model(made):
    rows = random_rows(40)
    expected = made.model.predict(read_rows(made.model.bundle.serving, rows)).scores
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda row: made.model.predict_rows([row]).scores, rows * 5))
        together = list(pool.map(lambda _: made.model.predict_rows(rows).scores, range(20)))
    np.testing.assert_array_equal(np.concatenate(alone), np.concatenate([expected] * 5))
    assert all(np.array_equal(scores, expected) for scores in together)


@pytest.mark.parametrize("count", [1, 16, 17, 60])
def test_what_is_wrong_is_named_whatever_the_number_of_rows(made, count):
    rows = random_rows(count)
    rows[-1] = rows[-1] | {"shop": 7, "size": 1}
    with pytest.raises(RequestError) as caught:
        made.model.predict_rows(rows)
    assert [(f["row"], f["field"]) for f in caught.value.fields] == [(count - 1, "size"), (count - 1, "shop")]


def test_a_row_of_the_past_is_refused_alone_too(made):
    model = copy.copy(made.model)
    model._max_past_us = 10**6
    model._quick = copy.copy(made.model._quick)
    model._quick._max_past_us = 10**6
    with pytest.raises(RequestError, match="1 rows lie too far in the past"):
        model.predict_rows([ROWS[0] | {"at": "2024-02-07T23:00:00Z"}])


# ---- what is kept of a prediction, and why it is so --------------------------------------------


def test_a_score_is_recomputed_to_the_bit(made):
    given = made.model.predict_rows(ROWS)
    for predictor in ("compiled", "xgboost"):
        again = made.model.score_again(given.matrix, given.base_margin, predictor)
        assert np.array_equal(again.view(np.int32), given.scores.view(np.int32))
    assert given.predictor == "compiled"
    assert made.model.facts["predictor"]["compiled"]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]])
def test_contributions_sum_to_the_margin(made, rows):
    given = made.model.predict_rows(rows)
    matrix = given.matrix.copy()
    matrix[0, 0] = np.inf
    found = made.model.explain(matrix, given.base_margin)
    classes = (3,) if made.task == "multiclass" else ()
    assert found.shape == (len(rows), len(made.transforms.names) + 1, *classes)
    assert found.dtype == np.float32
    margin = made.booster.inplace_predict(matrix, base_margin=given.base_margin, predict_type="margin")
    np.testing.assert_allclose(found.sum(axis=1), margin, rtol=1e-4, atol=1e-5)
    assert np.abs(found[:, :-1]).max() > 0


# ---- margins that cannot be --------------------------------------------------------------------


def test_a_request_without_a_margin_is_refused_with_its_row(made):
    margin = pl.when(pl.col("user") == "u9").then(None).otherwise(pl.lit(1.0))
    rows = pl.DataFrame({"at": [AS_OF] * 2, "user": ["u1", "u9"], "shop": ["a", "a"]})
    with pytest.raises(RequestError, match="1 rows have no base margin") as caught:
        made.model._margins(rows, margin)
    assert caught.value.fields[0]["row"] == 1


def test_arrow_has_the_columns_of_rows(made):
    rows = pl.DataFrame(ROWS).with_columns(pl.col("at").str.to_datetime(time_unit="us", time_zone="UTC"))
    sink = io.BytesIO()
    rows.write_ipc_stream(sink)
    call = Call("POST", "/models/shop/predict", "", {"content-type": ARROW}, sink.getvalue(), "r", 0)
    got = pl.read_ipc_stream(alone(answer(made.endpoint, call)).body).with_columns(
        pl.col("feature_time").dt.strftime("%FT%TZ")
    )
    assert got.to_dicts() == post(made, "/models/shop/predict", {"rows": ROWS})["predictions"]


def test_each_class_is_explained(made):
    told = post(made, "/models/shop/predict", {"rows": ROWS, "explain": True})["predictions"]
    margins = expected_scores(made, margins=True)
    for row, margin in zip(told, margins, strict=True):
        by_class = row["explanation"].values() if made.task == "multiclass" else [row["explanation"]]
        for one, expected in zip(by_class, np.atleast_1d(margin), strict=True):
            assert one["bias"] + sum(one["contributions"].values()) == pytest.approx(one["margin"], abs=1e-4)
            assert one["margin"] == pytest.approx(float(expected), rel=1e-3, abs=1e-4)

"""Comparisons of what was recorded with what is now, by hand and beside XGBoost's own dump of its trees."""

from __future__ import annotations

import copy
import json

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st

from raypipe.definitions.expressions import to_json
from raypipe.registry import differences
from raypipe.registry.document_changes import ABSENT, changes
from raypipe.registry.tree_differences import models, nodes_of, trees_of

DOCUMENTS = st.recursive(
    st.none() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


# ---- any two documents -------------------------------------------------------------------------


@given(DOCUMENTS, DOCUMENTS)
def test_documents_without_changes_are_equal(one, other):
    assert (list(changes(one, other)) == []) == (one == other)


@given(st.dictionaries(st.sampled_from("abc"), DOCUMENTS), st.dictionaries(st.sampled_from("abc"), DOCUMENTS))
def test_the_changes_lead_from_one_document_to_the_other(one, other):
    made = copy.deepcopy(one)
    for path, before, after in changes(one, other):
        *sections, last = path
        section = made
        for name in sections:
            section = section[name]
        assert section.get(last, ABSENT) == before
        if after is ABSENT:
            del section[last]
        else:
            section[last] = after
    assert made == other


def test_named_objects_in_lists_are_compared_by_name():
    before = [{"name": "a", "x": 1}, {"name": "b", "x": 2}]
    after = [{"name": "c", "x": 3}, {"name": "b", "x": 4}]
    assert list(changes(before, after)) == [
        (("a",), {"name": "a", "x": 1}, ABSENT), (("b", "x"), 2, 4), (("c",), ABSENT, {"name": "c", "x": 3}),
    ]  # fmt: skip


# ---- circumstances -----------------------------------------------------------------------------


def test_tuned_parameters_are_of_the_study_and_no_change_of_the_settings():
    now = {"training": {"params": {"eta": 0.1}, "rounds": 9}}
    tuned = {"training": {"params": {"eta": 0.02, "max_depth": 7}, "rounds": 9}}
    found = differences.configuration(tuned, now, tuning="a" * 64)
    assert (found.verdict, found.recorded) == ("same", f"project.yaml, parameters of study {'a' * 12}")
    assert len(differences.configuration(tuned, now).details) == 2
    tuned["training"]["rounds"] = 8
    assert differences.configuration(tuned, now, tuning="a" * 64).details == ("training.rounds: 8 -> 9",)


CLEAN = {"commit": "a" * 40, "dirty": False, "changes": []}


@pytest.mark.parametrize(
    ("now", "verdict", "said"),
    [
        (CLEAN, "same", []),
        (CLEAN | {"commit": "b" * 40}, "noted", [f"commit {'a' * 40} -> {'b' * 40}"]),
        ({"commit": None, "dirty": None, "changes": []}, "noted", [f"commit {'a' * 40} -> none"]),
        (CLEAN | {"dirty": True, "changes": [" M features.py"]}, "noted", ["the project's folder had changes that no commit holds, now: M features.py"]),
    ],
    ids=["same", "commit", "no-git", "dirty"],
)  # fmt: skip
def test_the_commit(now, verdict, said):
    finding = differences.code(CLEAN, now)
    assert (finding.verdict, list(finding.details)) == (verdict, said)


def test_a_tree_that_was_dirty_is_named():
    dirty = CLEAN | {"dirty": True, "changes": [" M features.py", "?? losses.py"]}
    assert "at the time: M features.py, ?? losses.py" in differences.code(dirty, CLEAN).details[0]


def definitions(target: pl.Expr, *names: str) -> dict:
    views = [
        {"name": name, "kind": "RequestView", "expressions": {"x": to_json(pl.col("x"), where="")}} for name in names
    ]
    return {
        "sources": [],
        "views": views,
        "label": {"name": "late", "target": to_json(target, where=""), "weight": None},
    }


def test_definitions_by_name():
    before, after = definitions(pl.col("m") > 3, "a", "b"), definitions(pl.col("m") > 4, "b", "c")
    finding = differences.definitions({"digest": "1", "document": before}, "2", after)
    assert [line.split(":")[0] for line in finding.details] == ["views.a is gone", "views.c is new", "label.target"]
    assert finding.details[2] == f"label.target: {pl.col('m') > 3} -> {pl.col('m') > 4}"


def test_the_order_of_views_is_a_difference():
    before, after = definitions(pl.col("m"), "a", "b"), definitions(pl.col("m"), "b", "a")
    finding = differences.definitions({"digest": "1", "document": before}, "2", after)
    assert finding.details == ("the order of sources or views",)


def test_expressions_that_print_alike_are_told_apart():
    before, after = (definitions(pl.lit(3, dtype), "a") for dtype in (pl.Int32, pl.Int64))
    [said] = differences.definitions({"digest": "1", "document": before}, "2", after).details
    assert said.startswith("label.target")
    assert "Int32 is gone: 3" in said
    assert "Int64 is new: 3" in said


def test_an_expression_of_another_polars_is_shown_as_it_was_stored():
    before, after = definitions(pl.col("m"), "a"), definitions(pl.col("m"), "a")
    before["label"]["target"] = {"Unheard": 1}
    [said] = differences.definitions({"digest": "1", "document": before}, "2", after).details
    assert said == 'label.target: {"Unheard":1} -> col("m")'


# ---- data --------------------------------------------------------------------------------------


def manifest(**files: tuple[str, int]) -> dict:
    listed = [{"name": n, "sha256": sha * 64, "rows": rows, "bytes": 10 * rows} for n, (sha, rows) in files.items()]
    return {"version": None, "files": listed, "corrupt": []}


def test_files_that_are_new_gone_and_changed():
    before, after = manifest(a=("1", 5), b=("2", 6), c=("3", 7)), manifest(b=("9", 8), c=("3", 7), d=("4", 1))
    finding = differences.snapshots({"s": before}, {"s": after})
    assert finding.details == (
        "s: a is gone: 50 bytes, 5 rows, sha256 111111111111",
        "s: b has changed: 60 bytes, 6 rows, sha256 222222222222 -> 80 bytes, 8 rows, sha256 999999999999",
        "s: d is new: 10 bytes, 1 rows, sha256 444444444444",
    )
    assert (finding.recorded, finding.rebuilt) == ("3 files, 18 rows", "3 files, 16 rows")


def test_a_file_that_has_become_unreadable():
    after = manifest() | {"corrupt": [{"name": "a", "sha256": "0" * 64, "bytes": 3, "problem": "no footer"}]}
    [said] = differences.snapshots({"s": manifest(a=("1", 5))}, {"s": after}).details
    assert said.endswith("-> 3 bytes, no footer, sha256 000000000000")


def test_another_version_of_a_delta_table():
    before, after = manifest(a=("1", 5)) | {"version": 3}, manifest(a=("1", 5)) | {"version": 4}
    assert differences.snapshots({"s": before}, {"s": after}).details == ("s: version 3 -> 4",)


# ---- trees -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def booster() -> xgb.Booster:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((800, 3))
    x[:, 2] = rng.integers(0, 6, 800)
    x[rng.random(x.shape) < 0.05] = np.nan
    y = (x[:, 0] * x[:, 1] + np.isin(x[:, 2], [1, 4]) + rng.normal(0, 0.3, 800) > 0.5).astype(float)
    data = xgb.DMatrix(
        x, y, feature_names=["first", "second", "kind"], feature_types=["q", "q", "c"], enable_categorical=True
    )
    return xgb.train({"max_depth": 4, "objective": "binary:logistic", "nthread": 1, "max_cat_to_onehot": 1}, data, 8)


@pytest.fixture
def document(booster) -> dict:
    return json.loads(booster.save_raw("json"))


def dumped(tree: dict) -> dict[int, dict]:
    found = {tree["nodeid"]: tree}
    for child in tree.get("children", []):
        found |= dumped(child)
    return found


def test_nodes_are_those_of_xgboosts_dump(booster, document):
    names = ["first", "second", "kind"]
    seen = {"leaf": 0, "number": 0, "category": 0}
    for tree, text in zip(trees_of(document), booster.get_dump(dump_format="json", with_stats=True), strict=True):
        nodes, expected = nodes_of(tree), dumped(json.loads(text))
        assert set(expected) == set(range(len(nodes)))
        for number, there in expected.items():
            node = nodes[number]
            assert node.hessian == pytest.approx(there["cover"], rel=1e-5)
            if "leaf" in there:
                seen["leaf"] += 1
                assert node.left == -1
                assert node.words(names).startswith("leaf ")
                assert node.condition == pytest.approx(there["leaf"], rel=1e-5)
                continue
            assert there["missing"] == (node.left if node.default_left else node.right)
            if isinstance(there["split_condition"], list):
                seen["category"] += 1
                assert {there["yes"], there["no"]} == {node.left, node.right}
                assert there["split_condition"] == list(node.categories)
                assert node.words(names) == f"kind in {{{', '.join(map(str, there['split_condition']))}}}"
            else:
                seen["number"] += 1
                assert (there["yes"], there["no"]) == (node.left, node.right)
                assert node.words(names).startswith(f"{there['split']} < ")
                assert node.condition == pytest.approx(there["split_condition"], rel=1e-5)
    assert min(seen.values()) > 0


def compared(one, other, **more):
    return models(one, other, **{"same_bytes": False, "apart": 0.25, "other_workers": False} | more)


def split_node(tree: dict, after: int) -> int:
    return next(
        n for n, left in enumerate(tree["left_children"]) if n > after and left >= 0 and tree["split_type"][n] == 0
    )


def test_the_first_tree_and_node_that_differ(document):
    other = copy.deepcopy(document)
    node = split_node(trees_of(other)[3], after=1)
    for number in (3, 5):
        trees_of(other)[number]["split_conditions"][node] += 0.125
    old, new = (trees_of(d)[3]["split_conditions"][node] for d in (document, other))
    name = ["first", "second"][trees_of(other)[3]["split_indices"][node]]
    finding = compared(document, other)
    assert finding.verdict == "differs"
    assert finding.details == (
        "2 of 8 trees differ, first tree 3",
        f"node {node} is the first that differs: {name} < {old!r} -> {name} < {new!r}",
        "predictions on the validation rows are at most 0.25 apart",
    )


def test_a_node_that_splits_alike_and_sums_otherwise(document):
    other = copy.deepcopy(document)
    trees_of(other)[0]["sum_hessian"][0] += 1
    before = trees_of(document)[0]["sum_hessian"][0]
    assert f"hessian {before!r} -> {before + 1!r}" in compared(document, other).details[1]


def test_fewer_trees_and_another_base(document):
    other = copy.deepcopy(document)
    del trees_of(other)[6:]
    other["learner"]["learner_model_param"]["base_score"] = "[7E-1]"
    finding = compared(document, other, apart=None)
    base = document["learner"]["learner_model_param"]["base_score"]
    assert finding.details == (
        "8 trees -> 6",
        f"base_score: {base} -> [7E-1]",
        "predictions cannot be compared: the features are others",
    )
    assert (finding.recorded, finding.rebuilt) == ("8 trees", "6 trees")


def test_with_another_number_of_workers_trees_may_differ(document):
    other = copy.deepcopy(document)
    trees_of(other)[0]["split_conditions"][0] += 1
    finding = compared(document, other, other_workers=True)
    assert (finding.verdict, finding.details[-1]) == ("noted", "trees may differ: worker count changed")
    assert compared(document, document, same_bytes=True, other_workers=True).verdict == "same"


# ---- validation --------------------------------------------------------------------------------


def run(*history: float, best: int = 0) -> dict:
    return {"metric": "logloss", "history": list(history), "best_round": best}


@pytest.mark.parametrize(
    ("recorded", "rebuilt", "other_workers", "verdict"),
    [
        (run(0.5, 0.4, best=1), run(0.5, 0.4, best=1), False, "same"),
        (run(0.5, 0.4, best=1), run(0.5, 0.4001, best=1), False, "differs"),
        (run(0.5, 0.4, best=1), run(0.5, 0.4003, best=1), True, "noted"),
        (run(0.5, 0.4, best=1), run(0.5, 0.4005, best=1), True, "differs"),
        (run(0.4, 0.5), run(0.4, 0.5, 0.6), False, "differs"),
        (run(0.4, 0.5), run(0.4, 0.5, 0.6), True, "noted"),
    ],
    ids=["same", "other", "within", "beyond", "longer", "longer-other-workers"],
)
def test_the_metric_on_validation(recorded, rebuilt, other_workers, verdict):
    assert differences.history(recorded, rebuilt, other_workers=other_workers).verdict == verdict

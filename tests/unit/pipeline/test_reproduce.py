"""A version is built again from its source files: to the byte where nothing has changed, else what has is named."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import xgboost as xgb

from raypipe.cli.scaffold import scaffold
from raypipe.errors import BundleError
from raypipe.evaluation.ml_test_score import ml_test_score
from raypipe.features.transforms import Transforms
from raypipe.pipeline.release_evidence import release_evidence
from raypipe.pipeline.reproduce import STEPS, record_of, reproduce
from raypipe.project import load_project
from raypipe.registry.bundle import read_bundle

pytestmark = pytest.mark.slow  # projects built whole

TABLE = "data/deliveries.parquet"


@pytest.fixture(scope="module")
def original(tmp_path_factory, edited, bundled) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("original") / "project"
    scaffold(folder)
    edited(folder, training__workers="auto", training__rounds=12, sources__deliveries__path="data")
    return bundled(folder)


@pytest.fixture
def project(original, tmp_path) -> Path:
    """A copy of the project, with nothing built."""
    shutil.copytree(original.folder, tmp_path / "project", ignore=shutil.ignore_patterns(".raypipe"))
    return tmp_path / "project"


def again(original, folder, version=None, *, keep=False) -> SimpleNamespace:
    """Reproduce the original's version in `folder`; findings by step."""
    pipeline = replace(original.pipeline, project=load_project(folder))
    made = reproduce(pipeline, version or original.version, keep=keep)
    found = {finding.step: finding for finding in made.findings}
    return SimpleNamespace(equal=made.equal, found=found, folder=made.folder, verdicts=verdicts(found))


def verdicts(found) -> dict[str, str]:
    return {step: finding.verdict for step, finding in found.items() if finding.verdict != "same"}


def digest(original) -> str:
    return original.version.bundle_digest


def details(made, step: str) -> str:
    return "\n".join(made.found[step].details)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def change(table: Path, order: int, **columns) -> None:
    here = pl.col("order_id") == order
    rows = pl.read_parquet(table)
    rows.with_columns(pl.when(here).then(value).otherwise(name).alias(name) for name, value in columns.items()).write_parquet(table)  # fmt: skip


# ---- nothing has changed -----------------------------------------------------------------------


def test_it_comes_out_the_same_to_the_byte(original, project):
    made = again(original, project, keep=True)
    assert made.equal
    assert list(made.found) == ["code", "libraries", "configuration", "definitions", *STEPS]
    assert made.verdicts == {"code": "noted"}  # a temporary folder is in no git
    [model] = Path(made.folder).glob("runs/*/attempt-*/model.ubj")
    bundle = Path(original.version.bundle_uri.removeprefix("file://"))
    assert model.read_bytes() == (bundle / "model.ubj").read_bytes()


def test_nothing_stored_is_reused_and_nothing_is_left(original, project):
    storage = original.folder / ".raypipe"
    before = {path: path.stat().st_mtime_ns for path in storage.rglob("*") if path.is_file()}
    for kind in ("sources", "features", "training_sets", "runs"):
        copied = project / ".raypipe" / kind
        shutil.copytree(storage / kind, copied)
        for path in copied.rglob("*.parquet"):
            path.write_bytes(b"no Parquet at all")
    made = again(original, project)
    assert (made.equal, made.folder) == (True, None)
    assert [*(project / ".raypipe" / "reproductions").iterdir()] == [record_of(load_project(project), digest(original))]
    assert {path: path.stat().st_mtime_ns for path in storage.rglob("*") if path.is_file()} == before


def test_what_was_known_at_a_time_is_reproduced_from_then(project, bundled, original):
    early = bundled(project, as_of=datetime(2025, 6, 10, tzinfo=UTC))
    assert again(original, project, early.version).equal
    told = read_bundle(early.version.bundle_uri, early.version.bundle_digest).lineage
    assert told["as_of"] == "2025-06-10T00:00:00+00:00"
    assert sum(partition["rows"] for partition in told["partitions"]) < 11_000


# ---- data --------------------------------------------------------------------------------------


def test_a_changed_row_of_the_test_part_changes_its_partition_and_no_tree(original, project):
    table = project / TABLE
    before = hashlib.sha256(table.read_bytes()).hexdigest()
    late = pl.read_parquet(table).filter(pl.col("minutes") < 25).row(-1, named=True)
    change(table, late["order_id"], minutes=late["minutes"] + 0.5)
    after = hashlib.sha256(table.read_bytes()).hexdigest()
    made = again(original, project)
    assert not made.equal
    assert made.verdicts == {
        "code": "noted", "snapshot": "differs", "contracts": "differs", "training set": "differs", "features": "differs",
    }  # fmt: skip
    assert details(made, "snapshot").startswith("deliveries: deliveries.parquet has changed: ")
    assert before[:12] in details(made, "snapshot")
    assert after[:12] in details(made, "snapshot")
    assert [line.partition(":")[0] for line in made.found["features"].details] == ["test from 2025-06-01T00"]


def test_a_changed_row_of_the_training_part_changes_trees(original, project):
    row = pl.read_parquet(project / TABLE).filter(pl.col("minutes") < 25).row(1000, named=True)
    change(project / TABLE, row["order_id"], minutes=row["minutes"] + 60)
    made = again(original, project)
    assert made.found["model"].verdict == made.found["validation"].verdict == "differs"
    assert "is the first that differs" in details(made, "model")
    assert "is the first that differs" in details(made, "validation")


def test_an_added_file_is_named_with_its_rows(original, project):
    table = pl.read_parquet(project / TABLE)
    table.tail(1).with_columns(pl.lit(1_000_000, pl.Int64).alias("order_id")).write_parquet(
        project / "data" / "more.parquet"
    )
    size = (project / "data" / "more.parquet").stat().st_size
    made = again(original, project)
    assert not made.equal
    assert details(made, "snapshot").startswith(f"deliveries: more.parquet is new: {size:,} bytes, 1 rows, sha256 ")
    assert "deliveries.rows: 12000 -> 12001" in details(made, "contracts")


def test_a_file_that_is_gone_is_named_and_the_rest_is_not_built(original, project):
    (project / TABLE).unlink()
    made = again(original, project)
    assert not made.equal
    assert "deliveries.parquet is gone: " in details(made, "snapshot")
    assert {step: verdict for step, verdict in made.verdicts.items() if step in STEPS[1:]} == dict.fromkeys(STEPS[1:], "not rebuilt")  # fmt: skip


def test_a_row_that_breaks_the_contract_is_a_finding(original, project):
    change(project / TABLE, 5, shop=pl.lit("nowhere"))
    made = again(original, project)
    assert made.found["contracts"].verdict == "differs"
    assert "shop|regex" in details(made, "contracts")
    assert made.found["training set"].verdict == "not rebuilt"


# ---- definitions and code ----------------------------------------------------------------------


def test_a_changed_expression_is_named_before_and_after(original, project):
    edit(project / "features.py", "dt.hour()", "dt.minute()")
    made = again(original, project, keep=True)
    assert made.found["definitions"].details == (
        'views.order.expressions.hour: col("ordered_at").dt.hour() -> col("ordered_at").dt.minute()',
    )
    assert made.found["snapshot"].verdict == "same"
    assert made.found["model"].verdict == "differs"
    assert f"predictions on the validation rows are at most {apart(original, Path(made.folder)):.3g} apart" in details(made, "model")  # fmt: skip


def apart(original, folder: Path) -> float:
    """The largest difference between both models' predictions, over all validation rows at once."""
    bundle = read_bundle(original.version.bundle_uri, original.version.bundle_digest)
    [manifest] = folder.glob("training_sets/*/manifest.json")
    files = [
        folder / "features" / f["name"] for f in json.loads(manifest.read_text())["files"] if f["part"] == "validation"
    ]
    [transforms], [model] = folder.glob("training_sets/*/attempt-*/transforms.json"), folder.glob("runs/*/*/model.ubj")
    new = Transforms.from_json(json.loads(transforms.read_text()))
    rows = pl.concat([pl.read_parquet(file) for file in files])

    def scores(booster, learned):
        types = learned.feature_types
        return booster.predict(xgb.DMatrix(learned.matrix(rows), feature_names=learned.names, feature_types=types))

    difference = scores(bundle.model, bundle.transforms) - scores(xgb.Booster(model_file=model), new)
    assert len(difference) > 1000
    return float(np.abs(difference).max())


def test_a_renamed_feature_makes_predictions_incomparable(original, project):
    edit(project / "features.py", '"hour":', '"clock":')
    made = again(original, project)
    assert "views.order.expressions.hour is gone" in details(made, "definitions")
    assert "views.order.expressions.clock is new" in details(made, "definitions")
    assert "predictions cannot be compared" in details(made, "model")


def test_settings_that_do_not_suit_the_definitions_are_a_finding(original, project, rewritten, tmp_path):
    recorded = json.loads(json.dumps(original.pipeline.project.settings.model_dump(mode="json")))
    recorded["transforms"]["features"] = {"order_gone": {"impute": 0.0}}
    version = rewritten(original.version, tmp_path, configuration=recorded)
    made = again(original, project, version)
    assert made.found["configuration"].verdict == "differs"
    assert "declares no feature 'order_gone'" in details(made, "configuration")
    assert made.found["model"].verdict == "same"  # built from the present ones, which it was made with


LOSSES = """
def logistic(margin, matrix):
    import numpy as np

    p = 1 / (1 + np.exp(-margin))
    return p - matrix.get_label(), p * (1 - p)
"""


def test_changed_code_of_the_project_is_named(project, original, edited, bundled, monkeypatch):
    (project / "losses.py").write_text(LOSSES)
    edited(project, training__objective="losses:logistic")
    own = bundled(project)
    assert again(original, project, own.version).equal
    (project / "losses.py").write_text(LOSSES.replace("p * (1 - p)", "p * (1 - p) + 0.1"))
    made = again(original, project, own.version)
    assert made.found["own code"].details == ("the module of training.objective has changed",)
    assert made.found["model"].verdict == "differs"
    (project / "losses.py").unlink()
    monkeypatch.delitem(sys.modules, "losses")  # another process would not have it
    made = again(original, project, own.version)
    assert "module 'losses' cannot be imported" in details(made, "own code")
    assert made.found["model"].verdict == "not rebuilt"


# ---- configuration and libraries ---------------------------------------------------------------


def test_a_changed_parameter_is_named_and_the_recorded_one_used(original, project, edited):
    edited(project, training__params={"eta": 0.3, "max_depth": 4}, split__test_from="2025-05-25", serving__port=9)
    made = again(original, project)
    assert made.equal
    assert made.found["configuration"].verdict == "noted"
    assert set(made.found["configuration"].details) == {
        "training.params.eta: 0.1 -> 0.3",
        "split.test_from: 2025-05-20T00:00:00Z -> 2025-05-25T00:00:00Z",
    }


def test_another_library_is_noted_and_content_decides(original, project, rewritten, tmp_path):
    known = original.pipeline.project
    version = rewritten(original.version, tmp_path, libraries__polars="0.0.1", training_set="0" * 64)
    made = again(original, project, version)
    assert known.definitions.digest()
    assert made.equal
    assert made.found["libraries"].details == (f"polars: 0.0.1 -> {pl.__version__}",)
    assert made.found["training set"].verdict == "noted"


def test_another_recorded_history_is_a_difference(original, project, rewritten, tmp_path):
    files = read_bundle(original.version.bundle_uri, original.version.bundle_digest)
    history = list(files.lineage["training"]["history"])
    history[4] += 1e-12
    made = again(original, project, rewritten(original.version, tmp_path, training__history=history))
    assert not made.equal
    assert made.verdicts["validation"] == "differs"
    assert details(made, "validation").startswith("round 5 is the first that differs: ")


# ---- the record --------------------------------------------------------------------------------


def test_what_came_of_it_is_recorded_and_counts_in_the_score(original, project):
    def points() -> float:
        score = ml_test_score(release_evidence(load_project(project), original.version))
        return score["sections"]["infrastructure"]["items"][0]["points"]

    assert points() == 0
    made = again(original, project)
    record = json.loads(record_of(load_project(project), digest(original)).read_text())
    assert (record["version"], record["equal"]) == (1, True)
    assert {finding["step"]: finding["verdict"] for finding in record["findings"]} == {
        step: finding.verdict for step, finding in made.found.items()
    }
    assert points() == 0.5
    change(project / TABLE, 17, shop=pl.lit("nowhere"))
    again(original, project)
    assert points() == 0  # the last time counts


# ---- bundles -----------------------------------------------------------------------------------


def test_a_damaged_bundle_is_refused(original, project, tmp_path):
    bundle = Path(original.version.bundle_uri.removeprefix("file://"))
    shutil.copytree(bundle, tmp_path / "bundle")
    model = tmp_path / "bundle" / "model.ubj"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    version = SimpleNamespace(version=1, bundle_uri=(tmp_path / "bundle").as_uri(), bundle_digest=original.version.bundle_digest)  # fmt: skip
    with pytest.raises(BundleError, match="a file of the bundle was changed"):
        again(original, project, version)
    assert not (project / ".raypipe" / "reproductions").exists()


def test_a_bundle_that_recorded_less_is_refused(original, project, tmp_path):
    from raypipe.registry.bundle import LINEAGE, read_files, write_bundle

    files = read_files(original.version.bundle_uri, original.version.bundle_digest)
    lineage = {k: v for k, v in json.loads(files[LINEAGE]).items() if k != "training"}
    digest, uri = write_bundle(tmp_path, files | {LINEAGE: json.dumps(lineage).encode()})
    with pytest.raises(BundleError, match="does not say all") as refused:
        again(original, project, SimpleNamespace(version=1, bundle_uri=uri, bundle_digest=digest))
    assert refused.value.got == "no training"

from __future__ import annotations

import os
import sys

import pytest

from raypipe.errors import ConfigurationError, DefinitionError, LeakError
from raypipe.project import load_project


def line_of(folder, text: str) -> int:
    lines = (folder / "features.py").read_text().splitlines()
    return 1 + next(at for at, line in enumerate(lines) if text in line)


def refusal(kind, folder):
    with pytest.raises(kind) as caught:
        load_project(folder)
    return caught.value


def test_no_such_folder(tmp_path):
    error = refusal(ConfigurationError, tmp_path / "nowhere")
    assert "nowhere" in error.got
    assert "--project" in error.hint


@pytest.mark.parametrize("file", ["project.yaml", "features.py"])
def test_missing_file(shop, tmp_path, file):
    (shop(tmp_path) / file).unlink()
    assert f"no {file}" in refusal(ConfigurationError, tmp_path).what


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("boom = 1 / 0", "features.py raises ZeroDivisionError"),
        ("import no_such_module", "features.py raises ModuleNotFoundError"),
        ("boom = 'open", "features.py raises SyntaxError"),
        ("raise SystemExit(0)", "features.py raises SystemExit"),
        ("rp.Source('boom', contract=Visits)", "event_time is missing"),
        ("rp.Source('boom', contract=Visits, dealy='1h')", "features.py raises TypeError"),
        ("rp.LatestView('boom', stock, 'shop', ['level'], max_age='1x')", "not a duration"),
    ],
)
def test_what_features_py_raises_has_its_line(shop, tmp_path, line, what):
    folder = shop(tmp_path, edits=[("by_user =", f"{line}\nby_user =")])
    error = refusal(DefinitionError, folder)
    assert what in error.what
    assert error.where.startswith(f"features.py:{line_of(folder, line)}")


@pytest.mark.parametrize(
    ("edit", "what", "where"),
    [
        (('rp.sum("amount")', 'rp.sum("amuont")'), "no column 'amuont'", "FeatureView('by_user').spent"),
        (
            ('rp.sum("amount")', 'rp.sum("shop")'),
            "an aggregation needs numbers or booleans",
            "FeatureView('by_user').spent",
        ),
        (('rp.sum("amount")', 'rp.sum(pl.col("shop") + 1)'), "cannot be computed", "FeatureView('by_user').spent"),
        (
            ('entity="user"', 'entity="amount"'),
            "no column 'amount'",
            "FeatureView('by_user').entity, which a request must carry",
        ),
        (('columns=["level"]', 'columns=["levle"]'), "no column 'levle'", "LatestView('in_stock').columns"),
        (
            ('columns=["level"]', 'columns=["at"]'),
            "feature 'in_stock_at' has a type that a model cannot use",
            "LatestView('in_stock')",
        ),
        (('pl.col("at").dt.hour()', 'pl.col("att").dt.hour()'), "no column 'att'", "RequestView('ask')"),
        (
            ('pl.col("at").dt.hour()', 'pl.col("at")'),
            "feature 'ask_hour' has a type that a model cannot use",
            "RequestView('ask')",
        ),
        (('pl.col("amount") > 50', 'pl.col("amuont") > 50'), "cannot derive column 'big'", "Source('visits').derive"),
        (('event_time="at",\n', 'event_time="shop",\n'), "'shop' is no UTC time", "Source('visits').event_time"),
        (('known_time="known"', 'known_time="knwon"'), "no column 'knwon'", "Source('visits').known_time"),
        (('known_ahead=["at",', 'known_ahead=["att", "at",'), "no column 'att'", "Source('visits').known_ahead"),
        (('target=pl.col("bought")', 'target=pl.col("amount")'), "target has the wrong type", "Label('bought')"),
        (('target=pl.col("bought")', 'target=pl.col("buoght")'), "no column 'buoght'", "Label('bought').target"),
        (
            ('pl.col("at").dt.offset_by("-30m")', 'pl.col("user")'),
            "prediction_time has the wrong type",
            "Label('bought')",
        ),
        (('rp.LatestView("place"', 'rp.LatestView("in_stock"'), "two things are called 'in_stock'", "view"),
        (
            ('"shop": pl.col("shop")}', '"shop": pl.col("shop"), "<12h": pl.lit(1)}'),
            "unusable name",
            "RequestView('ask')",
        ),
        (
            ("shop = dy.String(primary_key=True)\n    size", "shop = dy.String()\n    size"),
            "may have several rows for one entity",
            "LatestView('place')",
        ),
        (
            (
                "label = rp.Label",
                "other = rp.Label('other', visits, prediction_time=pl.col('at'), target=pl.col('bought'))\nlabel = rp.Label",
            ),
            "one Label",
            "",
        ),
    ],
)
def test_definitions_that_cannot_be_right(shop, tmp_path, edit, what, where):
    error = refusal(DefinitionError, shop(tmp_path, edits=[edit]))
    assert what in error.what
    assert where in error.where


@pytest.mark.parametrize(("name", "nearest"), [("amuont", "amount"), ("bougth", "bought")])
def test_unknown_column_names_the_nearest(shop, tmp_path, name, nearest):
    error = refusal(DefinitionError, shop(tmp_path, edits=[('rp.last("amount")', f'rp.last("{name}")')]))
    assert error.hint == f"did you mean '{nearest}'?"


# ---- leaks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"hour": pl.col("at").dt.hour()', '"hour": pl.col("amount")'),
        ('"hour": pl.col("at").dt.hour()', '"hour": pl.col("at").dt.hour() + pl.col("bought")'),
        ('"hour": pl.col("at").dt.hour()', '"hour": pl.col("known").dt.hour()'),
        ('"hour": pl.col("at").dt.hour()', '"hour": pl.col("big")'),
        ('pl.col("at").dt.offset_by("-30m")', 'pl.col("known").dt.offset_by("-30m")'),
        ('target=pl.col("bought"))', 'target=pl.col("bought"), request=["at", "user", "shop", "amount"])'),
    ],
)
def test_what_is_not_known_ahead_is_a_leak(shop, tmp_path, old, new):
    refusal(LeakError, shop(tmp_path, edits=[(old, new)]))


@pytest.mark.parametrize(
    "selected", ["pl.col(pl.Boolean)", "pl.all().is_null()", 'pl.col("^(label|l.*)$")', "cs.boolean()", "cs.last()"]
)
def test_a_request_view_may_not_select_columns_it_does_not_name(shop, tmp_path, selected):
    """The label stands beside the request's columns when features are computed."""
    edits = [
        ("import polars as pl", "import polars as pl\nimport polars.selectors as cs"),
        ('pl.col("at").dt.hour()', f"pl.any_horizontal({selected})"),
    ]
    refusal(DefinitionError, shop(tmp_path, edits=edits))


ROWS_MIXED = [
    'pl.col("amount") - pl.col("amount").mean()',
    'pl.col("amount").cum_sum()',
    'pl.col("amount").shift(-1)',
    'pl.col("amount").mean().over("user")',
]


@pytest.mark.parametrize("mixed", ROWS_MIXED)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param('rp.sum("amount")', "rp.sum({})", id="aggregation"),
        pytest.param('"big": pl.col("amount") > 50', '"big": ({}) > 50', id="derive"),
    ],
)
def test_a_value_may_not_mix_rows(shop, tmp_path, old, new, mixed):
    """Another row may not be known yet, and a plan that reads slices would see other rows."""
    refusal(DefinitionError, shop(tmp_path, edits=[(old, new.format(mixed))]))


@pytest.mark.parametrize("mixed", ['pl.col("shop").first()', "pl.len()", 'pl.col("at").rank()'])
def test_a_request_value_may_not_mix_rows(shop, tmp_path, mixed):
    refusal(
        DefinitionError,
        shop(tmp_path, edits=[('"shop": pl.col("shop")}', f'"shop": pl.col("shop"), "mixed": {mixed}}}')]),
    )


def test_the_example_refuses_the_departure_delay(flights_folder, tmp_path):
    text = (flights_folder / "features.py").read_text()
    (tmp_path / "project.yaml").write_text((flights_folder / "project.yaml").read_text())
    for old, new in (
        ('"dest": pl.col("dest"),', '"dest": pl.col("dep_delay"),'),
        ('target=pl.col("late"),', 'target=pl.col("late"), request=["dest", "dep_delay"],'),
    ):
        assert old in text
        (tmp_path / "features.py").write_text(text.replace(old, new))
        assert "dep_delay" in refusal(LeakError, tmp_path).what


# ---- code that does not run the same everywhere ------------------------------------------------

UDF = "map_batches(lambda column: column, return_dtype={})"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param('pl.col("at").dt.hour()', f'pl.col("at").dt.hour().{UDF.format("pl.Int8")}', id="request view"),
        pytest.param('rp.sum("amount")', f'rp.sum(pl.col("amount").{UDF.format("pl.Float64")})', id="aggregation"),
        pytest.param('pl.col("amount") > 50', f'(pl.col("amount") > 50).{UDF.format("pl.Boolean")}', id="derive"),
        pytest.param('target=pl.col("bought")', f'target=pl.col("bought").{UDF.format("pl.Boolean")}', id="target"),
        pytest.param(
            '.dt.offset_by("-30m")',
            f".{UDF.format('pl.Datetime(chr(117) + chr(115), chr(85) + chr(84) + chr(67))')}",
            id="prediction time",
        ),
        pytest.param(
            "    bought = dy.Bool(nullable=True)",
            f"    bought = dy.Bool(nullable=True, check=lambda c: c.{UDF.format('pl.Boolean')})",
            id="contract",
        ),
    ],
)
def test_a_python_function_is_refused_when_declared(shop, tmp_path, old, new):
    assert "Python function" in refusal(DefinitionError, shop(tmp_path, edits=[(old, new)])).what


# ---- project.yaml and features.py agree --------------------------------------------------------


def test_a_source_that_nobody_declares(shop, tmp_path):
    error = refusal(ConfigurationError, shop(tmp_path, settings={"sources.visit": {"path": "x"}}))
    assert (error.where, error.hint) == ("project.yaml: sources.visit", "did you mean 'visits'?")


def test_a_source_without_a_path(shop, tmp_path):
    error = refusal(
        ConfigurationError, shop(tmp_path, settings={"sources": {n: {"path": "x"} for n in ("visits", "shops")}})
    )
    assert "source 'stock' has no path" in error.what


@pytest.mark.parametrize(
    ("slice_", "hint"), [("shp", "did you mean 'shop'?"), ("amount", "known: ask_hour, ask_shop, at, ")]
)
def test_a_slice_must_be_a_request_column_or_a_feature(shop, tmp_path, slice_, hint):
    error = refusal(ConfigurationError, shop(tmp_path, settings={"evaluation.slices": [slice_]}))
    assert error.where == "project.yaml: evaluation.slices"
    assert error.hint.startswith(hint)


# ---- identity ----------------------------------------------------------------------------------


def test_two_projects_never_mix(shop, tmp_path):
    one, two = shop(tmp_path / "one"), shop(tmp_path / "two", edits=[('"6h"', '"7h"')])
    assert load_project(one).definitions.digest() != load_project(two).definitions.digest()
    assert load_project(one).definitions.digest() == load_project(one).definitions.digest()


def test_an_edit_is_seen_at_once(shop, tmp_path, monkeypatch):
    """As many bytes, saved within the same second: what a cached .pyc cannot tell apart."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    digests = []
    for window in ('"6h"', '"7h"'):
        folder = shop(tmp_path, edits=[('"6h"', window)])
        os.utime(folder / "features.py", (1_700_000_000, 1_700_000_000))
        digests.append(load_project(folder).definitions.digest())
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"6h"', '"5h"'),
        ('rp.last("amount")', 'rp.first("amount")'),
        ('pl.col("amount") > 50', 'pl.col("amount") > 51'),
        ('delay="10m"', 'delay="11m"'),
        ('max_age="1d"', 'max_age="2d"'),
        ('offset_by("-30m")', 'offset_by("-31m")'),
        ('target=pl.col("bought")', 'target=~pl.col("bought")'),
        ("nullable=True, min=0)", "nullable=True, min=1)"),
        ('known_ahead=["at", "user", "shop"]', 'known_ahead=["at", "user", "shop", "amount"]'),
        ('pl.col("at").dt.hour()', 'pl.col("at").dt.minute()'),
    ],
)
def test_the_digest_follows_every_definition(shop, tmp_path, old, new):
    one, two = shop(tmp_path / "one"), shop(tmp_path / "two", edits=[(old, new)])
    assert load_project(one).definitions.digest() != load_project(two).definitions.digest()


def test_the_digest_ignores_the_code_around_the_definitions(shop, tmp_path):
    one, two = (
        shop(tmp_path / "one"),
        shop(tmp_path / "two", edits=[("import raypipe as rp", "import raypipe as rp\n\n# a comment\nUNUSED = 1")]),
    )
    assert load_project(one).definitions.digest() == load_project(two).definitions.digest()


# ---- storage -----------------------------------------------------------------------------------


def test_the_storage_lies_beside_the_project(shop, tmp_path, monkeypatch):
    monkeypatch.delenv("RAYPIPE_STORAGE", raising=False)
    assert load_project(shop(tmp_path)).storage == tmp_path.resolve() / ".raypipe"


def test_a_shared_storage_comes_first(shop, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_STORAGE", str(tmp_path / "shared"))
    project = load_project(shop(tmp_path / "project"))
    assert project.storage == tmp_path.resolve() / "shared" / project.settings.name


def test_a_storage_that_ray_deletes_is_refused(shop, tmp_path, monkeypatch):
    monkeypatch.delenv("RAYPIPE_STORAGE", raising=False)
    project = load_project(shop(tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"))
    with pytest.raises(ConfigurationError, match="deleted with the job's copy"):
        _ = project.storage

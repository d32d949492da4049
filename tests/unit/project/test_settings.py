from __future__ import annotations

from datetime import UTC, datetime

import pytest
import yaml

from raypipe.errors import ConfigurationError
from raypipe.project import load_project
from raypipe.project.load import read_settings


@pytest.mark.parametrize(
    ("changes", "what", "says"),
    [
        ({"splt": {}}, "unknown key 'splt'", ["project.yaml: splt", "did you mean 'split'?"]),
        ({"split.embarg": "1d"}, "unknown key 'embarg'", ["split.embarg", "did you mean 'embargo'?"]),
        ({"sources.visits.pth": "x"}, "unknown key 'pth'", ["sources.visits.pth", "did you mean 'path'?"]),
        (
            {"sources.stock.contract.top": 1},
            "unknown key 'top'",
            ["sources.stock.contract.top", "known: freshness, max_share, on_"],
        ),
        ({"features.chunk_row": 5}, "unknown key 'chunk_row'", ["features.chunk_row", "did you mean 'chunk_rows'?"]),
        ({"about.ownr": "us"}, "unknown key 'ownr'", ["about.ownr", "did you mean 'owner'?"]),
        ({"zzz": 1}, "unknown key 'zzz'", ["project.yaml: zzz", "known: about, evaluation, features, lineage, name"]),
        ({"a": 1, "b": 2}, "(and 1 more)", ["project.yaml: a", "known: "]),
    ],
)
def test_unknown_key_names_the_nearest(shop, tmp_path, changes, what, says):
    with pytest.raises(ConfigurationError) as caught:
        load_project(shop(tmp_path, settings=changes))
    assert what in caught.value.what
    assert all(part in str(caught.value) for part in says)


@pytest.mark.parametrize(
    "key",
    [
        "name",
        "sources",
        "split",
        "evaluation",
        "split.embargo",
        "split.test_from",
        "evaluation.gate",
        "sources.stock.path",
    ],
)
def test_missing_key(shop, tmp_path, key):
    document = yaml.safe_load((shop(tmp_path) / "project.yaml").read_text())
    *path, last = key.split(".")
    section = document
    for part in path:
        section = section[part]
    del section[last]
    (tmp_path / "project.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigurationError, match=f"key '{key}' is missing"):
        load_project(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.workers", "two"),
        ("training.workers", 0),
        ("training.params", {"objective": "reg:squarederror"}),
        ("features.plan", "best"),
        ("features.chunk_rows", 0),
        ("features.partitions", 1.5),
        ("sources.visits.contract.on_violation", "ignore"),
        ("sources.visits.contract.max_share", 1.01),
        ("split.test_from", "yesterday"),
        ("split.validation_from", "2024-02-30"),
        ("split.embargo", "2 days"),
        ("split.embargo", 2),
        ("serving.max_past", "0h"),
        ("evaluation.gate", []),
        ("evaluation.confidence", 95),
        ("evaluation.blocks", "month"),
        ("evaluation.threshold", {}),
        ("evaluation.threshold", {"precision": 0.6, "recall": 0.5}),
        ("evaluation.threshold", {"false_positive": 1}),
        ("evaluation.threshold.recall", 0),
        ("about.owner", ""),
        ("about.limits", "none"),
        ("name", "../up"),
        ("name", 5),
    ],
)
def test_wrong_value_names_its_key(shop, tmp_path, key, value):
    with pytest.raises(ConfigurationError) as caught:
        load_project(shop(tmp_path, settings={key: value}))
    assert key.removesuffix(".params") in caught.value.where


def test_only_a_probability_has_a_threshold(shop_of, tmp_path):
    with pytest.raises(ConfigurationError, match="a regression label has no threshold"):
        load_project(shop_of("regression", tmp_path, settings={"evaluation.threshold": {"recall": 0.5}}))


@pytest.mark.parametrize(
    "split",
    [
        {"validation_from": "2024-01-30", "test_from": "2024-01-22"},
        {"validation_from": "2024-01-22", "test_from": "2024-01-22"},
        {"train_from": "2024-01-23"},
        {"test_to": "2024-01-30"},
    ],
)
def test_boundaries_must_be_in_order(shop, tmp_path, split):
    with pytest.raises(
        ConfigurationError, match="train_from < validation_from < test_from < test_to must hold"
    ) as caught:
        load_project(shop(tmp_path, settings={f"split.{k}": v for k, v in split.items()}))
    assert caught.value.where == "project.yaml: split"


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-22",
        "2024-01-22T00:00:00",
        "2024-01-22T00:00:00Z",
        "2024-01-22T02:00:00+02:00",
        "2024-01-21 19:00:00-05:00",
    ],
)
def test_moments_are_utc(shop, tmp_path, text):
    settings = read_settings(shop(tmp_path) / "project.yaml")
    (tmp_path / "project.yaml").write_text(
        (tmp_path / "project.yaml").read_text().replace("validation_from: '2024-01-22'", f"validation_from: {text}")
    )
    assert text in (tmp_path / "project.yaml").read_text()
    assert (
        read_settings(tmp_path / "project.yaml").split.validation_from
        == settings.split.validation_from
        == datetime(2024, 1, 22, tzinfo=UTC)
    )


@pytest.mark.parametrize("text", ["name: [", "- a\n- b\n", "", "just words", "\x00", 'name: "\\xff'])
def test_what_is_no_yaml_of_keys_and_values(shop, tmp_path, text):
    (shop(tmp_path) / "project.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_project(tmp_path)
    assert str(tmp_path / "project.yaml") in caught.value.where


def test_the_example_has_the_defaults_it_does_not_name(flights):
    settings = flights.project.settings
    assert (settings.serving.host, settings.storage, settings.sources["flights"].contract.on_violation) == (
        "127.0.0.1",
        ".raypipe",
        "refuse",
    )
    assert settings.split.validation_from == datetime(2013, 9, 1, tzinfo=UTC)


# ---- transforms --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "chosen", "what", "says"),
    [
        (
            "ask_shpo",
            {"impute": "a"},
            "no feature 'ask_shpo'",
            ["transforms.features.ask_shpo", "did you mean 'ask_shop'?"],
        ),
        ("user", {"impute": "a"}, "no feature 'user'", ["known: ask_hour, ask_shop"]),
        ("ask_shop", {"imptue": 1}, "unknown key 'imptue'", ["transforms.features.ask_shop.imptue", "'impute'?"]),
        (
            "ask_shop",
            {"target_encode": {"block": 2}},
            "unknown key 'block'",
            [".target_encode.block", "did you mean 'blocks'?"],
        ),
        ("ask_shop", {"target_encode": {"blocks": 1}}, "greater than or equal to 2", [".target_encode.blocks"]),
        ("ask_shop", {"target_encode": {"smoothing": -1}}, "greater than or equal to 0", [".target_encode.smoothing"]),
        ("ask_shop", {"target_encode": {"smoothing": float("inf")}}, "finite number", [".target_encode.smoothing"]),
        ("ask_shop", {"clip": [0, 1]}, "a category cannot be clipped", ["transforms.features.ask_shop.clip"]),
        ("ask_shop", {"impute": "median"}, "a category cannot be imputed like a number", ["got: median"]),
        ("ask_shop", {"impute": 7}, "a category cannot be imputed like a number", ["ask_shop.impute", "in quotes"]),
        ("ask_hour", {"target_encode": {}}, "only a category can be target-encoded", ["ask_hour", ".cast(pl.String)"]),
        ("ask_hour", {"impute": "noon"}, "a number cannot be imputed by a string", ["ask_hour.impute", "got: 'noon'"]),
        ("ask_hour", {"impute": float("nan")}, "a finite number", ["transforms.features.ask_hour.impute"]),
        ("ask_hour", {"impute": float("-inf")}, "a finite number", ["transforms.features.ask_hour.impute"]),
        ("ask_hour", {"impute": 1e39}, "a finite number", ["transforms.features.ask_hour.impute"]),
        ("ask_hour", {"impute": [1]}, "a finite number", ["transforms.features.ask_hour.impute"]),
        ("ask_hour", {"clip": [0.9, 0.1]}, "two rising shares", ["transforms.features.ask_hour"]),
        ("ask_hour", {"clip": [0.5, 0.5]}, "two rising shares", ["transforms.features.ask_hour"]),
        ("ask_hour", {"clip": [0.1, 1.1]}, "less than or equal to 1", ["transforms.features.ask_hour.clip.1"]),
        ("ask_hour", {"clip": [0.1]}, "clip.1' is missing", ["transforms.features.ask_hour.clip"]),
    ],
)
def test_transforms_that_cannot_be(shop, tmp_path, name, chosen, what, says):
    with pytest.raises(ConfigurationError) as caught:
        load_project(shop(tmp_path, settings={"transforms.features": {name: chosen}}))
    assert what in caught.value.what
    assert all(part in str(caught.value) for part in says)


@pytest.mark.parametrize(("key", "value"), [("rare_below", 0), ("rare_blow", 2), ("features", [])])
def test_a_wrong_section_of_transforms(shop, tmp_path, key, value):
    with pytest.raises(ConfigurationError) as caught:
        load_project(shop(tmp_path, settings={f"transforms.{key}": value}))
    assert caught.value.where == f"project.yaml: transforms.{key}"


def test_a_source_may_be_called_like_a_key(shop, tmp_path):
    with pytest.raises(ConfigurationError, match="unknown key 'pth'") as caught:
        load_project(shop(tmp_path, settings={"sources.path.pth": "x", "sources.path.path": "x"}))
    assert caught.value.hint == "did you mean 'path'?"


def test_transforms_that_can_be(shop, tmp_path):
    chosen = {
        "ask_hour": {"clip": [0, 0.99], "impute": -1},
        "ask_shop": {"target_encode": {}, "impute": "most_frequent"},
        "place_city": {"impute": "7"},
        "by_user_6h_big": {"impute": True},
    }
    found = load_project(shop(tmp_path, settings={"transforms.features": chosen})).settings.transforms.features
    assert [found[name].impute for name in chosen] == [-1.0, "most_frequent", "7", 1.0]
    assert (found["ask_shop"].target_encode.blocks, found["ask_shop"].target_encode.smoothing) == (5, 20)


def test_a_password_is_used_and_never_written_down(shop, tmp_path):
    uri = "https://me:secret@mlflow.example.org/team"
    settings = load_project(shop(tmp_path, settings={"registry.tracking_uri": uri})).settings
    assert settings.registry.tracking_uri == uri
    assert settings.model_dump(mode="json")["registry"]["tracking_uri"] == "https://mlflow.example.org/team"
    assert "secret" not in settings.model_dump_json()

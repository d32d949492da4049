"""Settings that were recorded at another time come back as they were."""

from __future__ import annotations

import json

import pytest

from raypipe.errors import ConfigurationError
from raypipe.project.load import load_project, with_settings


def test_settings_survive_their_document(shop, tmp_path):
    project = load_project(shop(tmp_path, settings={"transforms.features": {"by_user_6h_spent": {"clip": [0.1, 0.9], "impute": "mean"}}}))  # fmt: skip
    document = json.loads(json.dumps(project.settings.model_dump(mode="json")))
    assert with_settings(project, document).settings == project.settings


@pytest.mark.parametrize(
    "split",
    [{"column": "shop", "validation_share": 0.2}, {"random": {"validation": 0.2, "test": 0.2}, "seed": 7}],
    ids=["column", "random"],
)
def test_any_split_survives(shop, tmp_path, split):
    from raypipe.project import Settings

    project = load_project(shop(tmp_path))
    settings = Settings.model_validate(project.settings.model_dump(mode="json") | {"split": split})
    assert Settings.model_validate(json.loads(json.dumps(settings.model_dump(mode="json")))) == settings


def test_settings_of_another_raypipe_are_refused_by_key(shop, tmp_path):
    project = load_project(shop(tmp_path))
    with pytest.raises(ConfigurationError, match="unknown key 'mood'"):
        with_settings(project, project.settings.model_dump(mode="json") | {"mood": "good"})


def test_a_storage_of_its_own_comes_before_all(shop, tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.setenv("RAYPIPE_STORAGE", str(tmp_path / "shared"))
    project = load_project(shop(tmp_path / "shop"))
    assert project.storage == tmp_path / "shared" / "shop"
    assert replace(project, own_storage=tmp_path / "own").storage == tmp_path / "own"

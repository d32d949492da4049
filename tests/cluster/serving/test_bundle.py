"""A replica loads only what its digests promise (DESIGN 3.7). Loading needs no Ray."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from raypipe.errors import BundleError
from raypipe.serving.model import LoadedModel

FILES = ["model.ubj", "transforms.json", "serving.json", "metrics.json", "lineage.json", "bundle.json"]


@pytest.fixture(scope="module")
def right(target) -> dict[str, Any]:
    return target.user_config["versions"]["1"]


@pytest.fixture
def bundle(right, tmp_path) -> Path:
    return shutil.copytree(urlparse(right["bundle"]).path, tmp_path / "bundle")


@pytest.fixture
def load(right, bundle):
    return lambda **other: LoadedModel("1", right | {"bundle": bundle.as_uri()} | other, max_past_us=0)


def flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def test_the_whole_one_loads(load, bundle):
    assert load().bundle.digest == json.loads((bundle / "bundle.json").read_text())["digest"]
    assert sorted(path.name for path in bundle.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("at", [0, 0.5, 1])
@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte(load, bundle, name, at):
    flip(bundle / name, at)
    with pytest.raises(BundleError):
        load()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(load, bundle, name):
    (bundle / name).unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        load()


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_off(load, bundle, name):
    (bundle / name).write_bytes((bundle / name).read_bytes()[:-20])
    with pytest.raises(BundleError):
        load()


def test_another_digest(load):
    with pytest.raises(BundleError, match="not the bundle that was asked for"):
        load(digest="0" * 64)


def test_a_changed_file_with_its_hash_changed_too(load, bundle):
    (bundle / "transforms.json").write_text('{"categories": {}}')
    index = json.loads((bundle / "bundle.json").read_text())
    index["files"]["transforms.json"] = hashlib.sha256(b'{"categories": {}}').hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(index))
    with pytest.raises(BundleError, match="not the bundle that was asked for"):
        load()


def test_no_bundle(load, tmp_path):
    with pytest.raises(BundleError, match="cannot be read"):
        load(bundle=(tmp_path / "nowhere").as_uri())


def test_no_online_state(load, tmp_path):
    with pytest.raises(BundleError, match="the online state is missing"):
        load(online=str(tmp_path / "nowhere"))


def test_an_online_state_of_other_definitions(load):
    with pytest.raises(BundleError, match="the online state is not of these definitions"):
        load(online_identity="0" * 64)

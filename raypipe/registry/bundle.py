"""A bundle: everything a replica needs, in one folder, without pickle.

`<storage>/bundles/<digest>/`: `model.ubj`, `transforms.json`, `serving.json` (request contract, features),
`metrics.json`, `lineage.json`, and `bundle.json` with the SHA-256 of each. The digest is over `bundle.json`'s list of
files, so it covers every byte; a reader that is given a digest refuses anything else.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import orjson
import xgboost as xgb
from obstore.store import from_url

from raypipe.data.digest import digest_of
from raypipe.errors import BundleError
from raypipe.features.serving_spec import ServingSpec
from raypipe.features.transforms import Transforms

FOLDER = "bundles"
INDEX = "bundle.json"
STAGING = ".staging-"  # begins the name of a folder that is no bundle yet, or no longer
MODEL, TRANSFORMS, SERVING, METRICS, LINEAGE = (
    "model.ubj",
    "transforms.json",
    "serving.json",
    "metrics.json",
    "lineage.json",
)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, in memory."""

    digest: str
    model: xgb.Booster
    transforms: Transforms
    serving: ServingSpec
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]


def write_bundle(folder: Path, files: Mapping[str, bytes]) -> tuple[str, str]:
    """Write a bundle under `folder`/<digest> atomically, the same content once; returns its digest and URI."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    digest = digest_of(hashes)
    target = folder / digest
    if not target.exists():
        staging = folder / f"{STAGING}{uuid.uuid4().hex}"
        staging.mkdir(parents=True)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        (staging / INDEX).write_bytes(orjson.dumps({"digest": digest, "files": hashes}, option=orjson.OPT_INDENT_2))
        try:
            staging.rename(target)
        except OSError:
            shutil.rmtree(staging)  # another writer of the same content was first
            if not target.exists():
                raise
    return digest, target.resolve().as_uri()


def read_bundle(uri: str, digest: str) -> Bundle:
    """The bundle at `uri` (file:// or an object store's), every byte checked. Runs in each replica.

    Raises BundleError if a file is missing, or if any byte is not what `digest` promises.
    """
    files = read_files(uri, digest)
    try:
        bundle = Bundle(
            digest,
            xgb.Booster(model_file=bytearray(files[MODEL])),
            Transforms.from_json(orjson.loads(files[TRANSFORMS])),
            ServingSpec.from_json(orjson.loads(files[SERVING])),
            orjson.loads(files[METRICS]),
            orjson.loads(files[LINEAGE]),
        )
    except (KeyError, TypeError, xgb.core.XGBoostError) as error:
        raise BundleError(
            "the bundle is of another version of raypipe", where=uri, got=error, hint="train and package it again"
        ) from None
    if bundle.model.feature_names != bundle.transforms.names:
        raise BundleError("the model's features are not the transforms'", where=uri)
    return bundle


def read_files(uri: str, digest: str) -> dict[str, bytes]:
    """The bundle's files by name, every byte checked. Raises BundleError as `read_bundle` does."""
    try:
        hashes = dict(orjson.loads(_read(uri, INDEX))["files"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise BundleError("the bundle's index is damaged", where=f"{uri}/{INDEX}", got=error) from None
    if digest_of(hashes) != digest:
        raise BundleError(
            "this is not the bundle that was asked for", where=uri, got=digest_of(hashes), expected=digest
        )
    files = {name: _read(uri, name) for name in hashes}
    for name, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        if found != hashes[name]:
            raise BundleError(
                "a file of the bundle was changed",
                where=f"{uri}/{name}",
                got=f"sha256 {found}",
                expected=f"sha256 {hashes[name]}",
                hint="restore it, or deploy another version",
            )
    return files


def is_there(uri: str) -> bool:
    """Whether there is a bundle at `uri`, whole or not."""
    try:
        _read(uri, INDEX)
    except BundleError:
        return False
    return True


def _read(uri: str, name: str) -> bytes:
    try:
        return bytes(obstore.get(from_url(uri), name).bytes())
    except (FileNotFoundError, obstore.exceptions.BaseError) as error:
        raise BundleError(
            "a file of the bundle cannot be read", where=f"{uri}/{name}", got=str(error).splitlines()[0]
        ) from None

"""Whether today's features.py defines features as it did when a version was trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from raypipe.data.digest import short
from raypipe.errors import RegistryError
from raypipe.project import Project

PARTS = ("sources", "views", "label")  # of `Definitions.document`
FEATURES = ("sources", "views")  # what features depend on


def require_same_definitions(
    project: Project, version: int, lineage: Mapping[str, Any], parts: Collection[str] = PARTS
) -> None:
    """Raise RegistryError unless `parts` of the project's definitions are as in the version's `lineage`: what is
    computed by today's is not the model's then."""
    trained = lineage["definitions"]
    today = orjson.loads(orjson.dumps(project.definitions.document()))
    if any(trained["document"][part] != today[part] for part in parts):
        raise RegistryError(
            f"features.py has changed since version {version} was trained",
            where=project.folder.name,
            got=f"definitions {short(project.definitions.digest())}",
            expected=short(trained["digest"]),
            hint="train a new version (raypipe run), name one of these definitions, or check out the features.py that "
            "belongs to this one",
        )

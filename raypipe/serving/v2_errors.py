"""Errors as the Open Inference Protocol has them: one sentence, which is all that its clients show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from raypipe.errors import RaypipeError
from raypipe.serving.call import Reply
from raypipe.serving.call import refusal as plain_refusal


def refusal(error: RaypipeError) -> Reply:
    """As everywhere, with the sentence as `error` and the error's name as `kind`."""
    document = error.to_json()
    said = document | {"error": in_words(document), "kind": document["error"]}
    return replace(plain_refusal(error), body=orjson.dumps(said))


def in_words(document: Mapping[str, Any]) -> str:
    """An error's document (RaypipeError.to_json) in one line."""
    details = [f"{name}: {document[name]}" for name in ("where", "got", "expected", "hint") if document.get(name)]
    return "; ".join([str(document["what"]), *map(_field, document.get("fields", [])), *details])


def _field(fault: Mapping[str, Any]) -> str:
    name, row = fault.get("field") or "the row", fault.get("row")
    return f"{name}{'' if row is None else f' in row {row}'}: {fault['reason']}"

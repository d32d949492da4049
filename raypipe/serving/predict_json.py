"""`predict` for people: JSON rows of raw fields in, predictions out."""

from __future__ import annotations

from typing import Any

from raypipe.errors import MalformedRequestError
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint, first
from raypipe.serving.model import moment
from raypipe.serving.outputs import as_rows
from raypipe.serving.record import Served


def answer(endpoint: Endpoint, version: str | None, call: Call, document: dict[str, Any]) -> Reply:
    """version: the one that the path names; None: the traffic decides."""
    rows = document.get("rows")
    extra = sorted(set(document) - {"rows", "id"})
    if extra or not isinstance(rows, list) or not rows:
        raise MalformedRequestError(
            'the body must be {"rows": [{...}, ...]}',
            got=f"keys {', '.join(sorted(document)) or 'none'}",
            expected="a list of at least one row, and optionally an id",
        )
    endpoint.require_rows(len(rows))
    key = endpoint.key(call, first(rows))
    model = endpoint.version(version or endpoint.traffic.choose(key))
    predictions = model.predict_rows(rows)
    found = as_rows(model.bundle, predictions.scores)
    if predictions.feature_time_us is not None:
        times = [moment(time) for time in predictions.feature_time_us.tolist()]
        found = [row | {"feature_time": time} for row, time in zip(found, times, strict=True)]
    head = {"model": endpoint.model, "model_version": model.version} | (
        {"id": document["id"]} if document.get("id") else {}
    )
    request_id = document.get("id") or call.id
    served = Served(request_id, call.received_us, endpoint.model, model.version, key, rows, predictions)
    return json_reply(200, head | {"predictions": found}, model.version, served)

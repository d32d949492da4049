"""Predictions as the caller takes them: a JSON document, or an Arrow stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raypipe.serving.arrow import write_stream
from raypipe.serving.call import ARROW, Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.model import LoadedModel, Predictions
from raypipe.serving.outputs import as_frame, as_rows
from raypipe.serving.record import Rows, Served


def prediction_reply(
    endpoint: Endpoint,
    model: LoadedModel,
    call: Call,
    key: str,
    *,
    rows: Rows,
    predictions: Predictions,
    given_id: str | None = None,
    explanations: Sequence[dict[str, Any]] | None = None,
) -> Reply:
    """given_id: the body's own; explanations: one a row, which only JSON can hold."""
    request_id = given_id or call.id
    body = call.body if isinstance(rows, list) else None
    served = Served(request_id, call.received_us, endpoint.model, model.version, key, rows, predictions, body=body)
    if explanations is None and wants_arrow(call):
        metadata = {"model": endpoint.model, "model_version": model.version, "id": request_id}
        stream = write_stream(as_frame(model.bundle, predictions), metadata)
        return Reply(200, stream, ARROW, model.version, served=served)
    found = as_rows(model.bundle, predictions)
    if explanations is not None:
        found = [row | {"explanation": reason} for row, reason in zip(found, explanations, strict=True)]
    head = {"model": endpoint.model, "model_version": model.version} | ({"id": given_id} if given_id else {})
    return json_reply(200, head | {"predictions": found}, model.version, served)


def wants_arrow(call: Call) -> bool:
    """Whether the answer is an Arrow stream: where one is accepted by name, or was sent and anything is accepted."""
    accepted = call.headers.get("accept", "*/*")
    return ARROW in accepted or ("*/*" in accepted and call.headers.get("content-type", "").startswith(ARROW))

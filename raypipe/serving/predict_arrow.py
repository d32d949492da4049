"""`predict` for bulk: an Arrow IPC stream of the request's columns; no Python runs for each row."""

from __future__ import annotations

from raypipe.serving.arrow import read_stream
from raypipe.serving.call import ARROW, Call, Reply
from raypipe.serving.columns import read_columns
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.json_body import require_type
from raypipe.serving.prediction_reply import prediction_reply


def answer(endpoint: Endpoint, version: str | None, call: Call) -> Reply:
    """version: the one that the path names; None: the traffic decides, by the first row's key for all rows."""
    require_type(call.headers, ARROW)
    table = read_stream(call.body, endpoint.limits.max_bulk_rows)
    single = {name: table.column(name) for name in endpoint.traffic.key if table.column_names.count(name) == 1}
    key = endpoint.key(call, {name: column[0].as_py() for name, column in single.items()})
    model = endpoint.version(version or endpoint.traffic.choose(key))
    rows = read_columns(model.bundle.serving, table, endpoint.limits.max_bulk_bytes)
    return prediction_reply(endpoint, model, call, key, rows=rows, predictions=model.predict(rows))

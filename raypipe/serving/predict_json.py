"""`predict` with JSON rows of raw fields; `explain` says what each feature added."""

from __future__ import annotations

from raypipe.errors import MalformedRequestError
from raypipe.serving.call import Call
from raypipe.serving.endpoint import Endpoint, first, require_at_most
from raypipe.serving.explanations import explanations
from raypipe.serving.json_body import document
from raypipe.serving.prediction_reply import prediction_reply
from raypipe.serving.together import Steps, Wanted

_KEYS = {"rows", "id", "explain"}


def answer(endpoint: Endpoint, version: str | None, call: Call) -> Steps:
    """version: the one that the path names; None: the traffic decides."""
    asked = document(call)
    rows, explain = asked.get("rows"), asked.get("explain", False)
    if not asked.keys() <= _KEYS or not isinstance(rows, list) or not rows or not isinstance(explain, bool):
        raise MalformedRequestError(
            'the body must be {"rows": [{...}, ...]}',
            got=f"keys {', '.join(sorted(asked)) or 'none'}",
            expected="a list of at least one row, and optionally an id, and explain: true or false",
        )
    endpoint.require_rows(len(rows))
    if explain:
        require_at_most(endpoint.limits.max_explained_rows, len(rows), "rows to explain in one request")
    key = endpoint.key(call, first(rows))
    model = endpoint.version(version or endpoint.traffic.choose(key))
    predictions = yield Wanted(model, rows)
    reasons = explanations(model, predictions) if explain else None
    return prediction_reply(
        endpoint, model, call, key,
        rows=rows, predictions=predictions, given_id=asked.get("id"), explanations=reasons,
    )  # fmt: skip

"""A small HTTP client for the endpoint: what `raypipe predict` and the demo use."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from raypipe.errors import ClusterError, RequestError


def answering_version(base: str, timeout_s: float = 2.0) -> str | None:
    """The version that answers by default, or None if nobody answers. Needs no API key."""
    try:
        with urllib.request.urlopen(f"{base}/v2/health/ready", timeout=timeout_s) as response:  # noqa: S310
            answered: str | None = response.headers.get("x-model-version")
            return answered
    except OSError:
        return None


def predict(base: str, model: str, rows: list[dict[str, Any]], timeout_s: float = 30.0) -> dict[str, Any]:
    """POST rows to `/models/{model}/predict`; the answer's document.

    Raises RequestError with the endpoint's reasons for a 4xx, and ClusterError if nobody answers.
    """
    url = f"{base}/models/{model}/predict"
    body = json.dumps({"rows": rows}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            document: dict[str, Any] = json.load(response)
            return document
    except urllib.error.HTTPError as error:
        raise _refusal(error) from None
    except OSError as error:
        raise ClusterError("no endpoint answers", where=url, got=error, hint="start it with: raypipe serve") from None


def _refusal(error: urllib.error.HTTPError) -> RequestError:
    try:
        document = json.load(error)
    except ValueError:
        document = {}
    return RequestError(
        document.get("what", f"the endpoint answered {error.code}"),
        fields=document.get("fields"),
        where=error.url or "",
        got="; ".join(f"{f.get('field')}: {f['reason']}" for f in document.get("fields", [])) or document.get("got"),
        expected=document.get("expected"),
    )

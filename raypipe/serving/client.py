"""`raypipe.Client`: ask a running endpoint for predictions. Needs neither Ray nor, unless frames are sent, Polars."""

from __future__ import annotations

import math
import os
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import orjson

from raypipe.errors import ClusterError, ConfigurationError, RequestError
from raypipe.serving.client_results import Prediction, Predictions, predictions_of
from raypipe.serving.client_transport import Answer, Backoff, Transport

if TYPE_CHECKING:
    import polars as pl

API_KEY_VARIABLE = "RAYPIPE_API_KEY"
JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
T = TypeVar("T")


def answering_version(base: str, trust: ssl.SSLContext | None = None, timeout_s: float = 2.0) -> str | None:
    """The version that answers by default, or None if nobody answers. Needs no API key."""
    url = f"{base}/v2/health/ready"
    try:
        with urllib.request.urlopen(url, timeout=timeout_s, context=trust) as response:  # noqa: S310 (the URL is ours)
            answered: str | None = response.headers.get("x-model-version")
            return answered
    except OSError:
        return None


@dataclass(frozen=True)
class _Asked:
    """What goes with every request of one call."""

    version: str | None
    key: str | None
    request_id: str
    until: float

    def id(self, number: int, of: int) -> str:
        """Of request `number` of so many: each has its own."""
        return self.request_id if of == 1 else f"{self.request_id}-{number}"


class Client:
    """An endpoint's model. Threads may share a client; close it, or use it as a context manager.

        with raypipe.Client("http://127.0.0.1:8000", "flights-late") as client:
            print(client.predict([{"origin": "EWR", ...}])[0].probability)

    api_key: default: the environment's RAYPIPE_API_KEY, if it is set.
    timeout_s: of each call, over all its requests and tries.
    batch_rows: rows in one request; more are split, as the endpoint's `serving.max_rows` demands. bulk_rows: likewise
        of `predict_frame`.
    concurrency: requests of one call at a time.
    retries: further tries of a request that found no connection, or was answered 429, 502 or 503.
    ssl_context: what to trust of an https endpoint; default: the system's certificates.

    Every method raises RequestError in the endpoint's words for the caller's mistakes (`fields` names each wrong field;
    `row` counts within the whole call), and ClusterError if there is no answer in time.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        batch_rows: int = 500,
        bulk_rows: int = 50_000,
        concurrency: int = 4,
        retries: int = 6,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        for name, number in {"batch_rows": batch_rows, "bulk_rows": bulk_rows, "concurrency": concurrency}.items():
            if number < 1:
                raise ConfigurationError(f"{name} must be at least 1", where="Client", got=number)
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError("not a URL", where="Client", got=url, expected="http://host:port")
        key = api_key or os.environ.get(API_KEY_VARIABLE)
        headers = {"user-agent": "raypipe"} | ({"authorization": f"Bearer {key}"} if key else {})
        backoff = Backoff(retries)
        self._transport = Transport(url, headers, connections=concurrency, backoff=backoff, ssl_context=ssl_context)
        self._model, self._timeout_s = model, timeout_s
        self._batch_rows, self._bulk_rows, self._concurrency = batch_rows, bulk_rows, concurrency

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def predict(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        version: str | int | None = None,
        key: str | None = None,
        explain: bool = False,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Predictions:
        """One prediction a row; times and dates may be Python's own.

        version: ask this one instead of the one that the traffic's weights choose; key: whom the request is of, which
        those weights go by; explain: say what each feature added; request_id: else one is drawn.
        """
        asked = self._asked(version, key, request_id, timeout_s)
        batches = [rows[at : at + self._batch_rows] for at in range(0, len(rows), self._batch_rows)]

        def ask(number: int) -> list[Prediction]:
            batch, first = batches[number], number * self._batch_rows
            with _counted_from(first):
                body = _json({"rows": batch} | ({"explain": True} if explain else {}))
                answer = self._post(body, JSON, asked, asked.id(number, len(batches)))
            return _read(answer, asked.id(number, len(batches)), len(batch))

        found = self._each(ask, len(batches))
        return Predictions(self._model, tuple(prediction for part in found for prediction in part))

    def explain(self, rows: Sequence[Mapping[str, Any]], **asked: Any) -> Predictions:
        """`predict` with explain=True."""
        return self.predict(rows, explain=True, **asked)

    def predict_arrow(
        self,
        frame: pl.DataFrame,
        *,
        version: str | int | None = None,
        key: str | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> pl.DataFrame:
        """`predict` for bulk: a frame with the request's columns as Arrow streams; the answer's columns, one row a row,
        with the `model_version` that answered and the `request_id` that the row went in."""
        import polars as pl

        asked = self._asked(version, key, request_id, timeout_s)
        batches = list(frame.iter_slices(self._bulk_rows)) if frame.height else []

        def ask(number: int) -> pl.DataFrame:
            batch, request = batches[number], asked.id(number, len(batches))
            with _counted_from(number * self._bulk_rows):
                answer = self._post(_stream(batch), ARROW, asked, request)
            found = _read_stream(answer, batch.height)
            said = {"model_version": answer.headers.get("x-model-version"), "request_id": request}
            return found.with_columns(pl.lit(value, pl.String).alias(name) for name, value in said.items())

        found = self._each(ask, len(batches))
        return pl.concat(found) if found else pl.DataFrame()

    def _asked(
        self, version: str | int | None, key: str | None, request_id: str | None, timeout_s: float | None
    ) -> _Asked:
        named = None if version is None else str(version)
        until = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        return _Asked(named, key, request_id or uuid.uuid4().hex, until)

    def _post(self, body: bytes, kind: str, asked: _Asked, request_id: str) -> Answer:
        version = "" if asked.version is None else f"/versions/{quote(asked.version, safe='')}"
        path = f"/models/{quote(self._model, safe='')}{version}/predict"
        headers = {"content-type": kind, "accept": kind, "x-request-id": request_id}
        headers |= {} if asked.key is None else {"x-raypipe-key": asked.key}
        return self._transport.send("POST", path, body, headers, asked.until)

    def _each(self, ask: Callable[[int], T], count: int) -> list[T]:
        """The answers to so many requests, in order; after an error no further one is sent."""
        if count <= 1:
            return [ask(number) for number in range(count)]
        with ThreadPoolExecutor(min(self._concurrency, count)) as pool:
            try:
                return list(pool.map(ask, range(count)))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


@contextmanager
def _counted_from(first: int) -> Iterator[None]:
    """Wrong fields of a request whose rows begin at `first` of the call, by their row in the call."""
    try:
        yield
    except RequestError as error:
        error.fields = [f | {"row": f["row"] + first} if isinstance(f.get("row"), int) else f for f in error.fields]
        raise


def _json(document: Mapping[str, Any]) -> bytes:
    """As JSON. Raises RequestError for values that it cannot hold: NaN and infinity would become null on the way."""
    for at, row in enumerate(document["rows"]):
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                fields = [{"row": at, "field": name, "reason": "must be a finite number; a missing one is None"}]
                raise RequestError("a number is not finite", fields=fields, got=value)
    try:
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise RequestError("a row holds a value that JSON cannot hold", got=error) from None


def _stream(frame: pl.DataFrame) -> bytes:
    import polars as pl

    buffer = BytesIO()
    frame.write_ipc_stream(buffer, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return buffer.getvalue()


def _read(answer: Answer, request_id: str, rows: int) -> list[Prediction]:
    try:
        found = predictions_of(orjson.loads(answer.body), request_id)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise _not_ours(error) from None
    return _require(found, len(found), rows)


def _read_stream(answer: Answer, rows: int) -> pl.DataFrame:
    import polars as pl

    try:
        found = pl.read_ipc_stream(answer.body)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _not_ours(error) from None
    return _require(found, found.height, rows)


def _require(found: T, got: int, rows: int) -> T:
    if got != rows:
        raise _not_ours(f"{got} predictions for {rows} rows")
    return found


def _not_ours(got: object) -> ClusterError:
    return ClusterError("what answers is no endpoint of raypipe", got=str(got)[:200], hint="look at the client's URL")

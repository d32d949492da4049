"""The floor of any Python server: an ASGI function on uvicorn, orjson both ways, nothing checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
import uvicorn
import xgboost as xgb
from options import load, options

JSON = (b"content-type", b"application/json")
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def application(booster: xgb.Booster) -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
    async def answer(_scope: dict[str, Any], receive: Receive, send: Send) -> None:
        rows = np.asarray(orjson.loads(await body(receive))["rows"], np.float32)
        found = orjson.dumps({"p": booster.inplace_predict(rows)}, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = [JSON, (b"content-length", b"%d" % len(found))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": found})

    return answer


async def body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


if __name__ == "__main__":
    given = options()
    uvicorn.run(
        application(load(given.model)),
        host="127.0.0.1",
        port=given.port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
    )

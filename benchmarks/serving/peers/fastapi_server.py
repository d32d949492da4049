"""FastAPI: typed body and answer, an async handler, uvloop and httptools, no access log; `--workers` processes."""

from __future__ import annotations

import os

import numpy as np
import uvicorn
from fastapi import FastAPI
from options import load, options
from pydantic import BaseModel

MODEL = "BENCHMARK_MODEL"  # how the workers, which import this module, learn where the model lies


class Rows(BaseModel):
    rows: list[list[float]]


class Answer(BaseModel):
    p: list[float]


def application() -> FastAPI:
    app, booster = FastAPI(), load(os.environ[MODEL])

    @app.post("/predict")
    async def predict(asked: Rows) -> Answer:
        return Answer(p=booster.inplace_predict(np.asarray(asked.rows, np.float32)).tolist())

    return app


if __name__ == "__main__":
    given = options(workers=1)
    os.environ[MODEL] = str(given.model)
    uvicorn.run(
        "fastapi_server:application",
        factory=True,
        host="127.0.0.1",
        port=given.port,
        workers=given.workers,
        loop="uvloop",
        http="httptools",
        access_log=False,
    )

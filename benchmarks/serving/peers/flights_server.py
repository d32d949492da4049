"""What serves the flights example's model with nothing around it: FastAPI, features computed beforehand."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI
from options import load, options
from pydantic import BaseModel


class Flight(BaseModel, frozen=True):
    carrier: str
    origin: str
    dest: str
    tailnum: str | None
    scheduled_at: datetime


class Flights(BaseModel):
    rows: list[Flight]


class Late(BaseModel):
    probability: float


class Answer(BaseModel):
    predictions: list[Late]


def application(model: Path) -> FastAPI:
    """One route, for the flights whose features lie beside the model."""
    app, booster, features = FastAPI(), load(model), np.load(model.with_name("features.npy"))
    rows = json.loads(model.with_name("rows.json").read_text())
    place = {Flight.model_validate(row): at for at, row in enumerate(rows)}

    @app.post("/models/flights-late/predict")
    async def predict(asked: Flights) -> Answer:
        found = booster.inplace_predict(features[[place[flight] for flight in asked.rows]])
        return Answer(predictions=[Late(probability=p) for p in found.tolist()])

    return app


if __name__ == "__main__":
    given = options()
    server = {"host": "127.0.0.1", "loop": "uvloop", "http": "httptools", "access_log": False}
    uvicorn.run(application(given.model), port=given.port, **server)

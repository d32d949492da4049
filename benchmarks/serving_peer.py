"""What serves a model with nothing around it: FastAPI and one uvicorn process, features computed beforehand.

`serving_peer.py FOLDER PORT` answers until it is interrupted.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import uvicorn
import xgboost as xgb
from fastapi import FastAPI
from pydantic import BaseModel


class Flight(BaseModel, frozen=True):
    carrier: str
    origin: str
    dest: str
    tailnum: str | None
    scheduled_at: datetime


class Flights(BaseModel):
    rows: list[Flight]


def application(folder: Path) -> FastAPI:
    """One route, `POST /predict`, for the flights whose features were computed."""
    booster = xgb.Booster(model_file=folder / "served.ubj")
    booster.set_param({"nthread": 1})
    features = np.load(folder / "features.npy")
    rows = json.loads((folder / "requests.json").read_text())["rows"]
    place = {Flight.model_validate(row): at for at, row in enumerate(rows)}
    app = FastAPI()

    @app.post("/predict")
    async def predict(asked: Flights) -> dict[str, list[dict[str, float]]]:
        found = booster.inplace_predict(features[[place[flight] for flight in asked.rows]])
        return {"predictions": [{"probability": float(p)} for p in found]}

    return app


if __name__ == "__main__":
    uvicorn.run(application(Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), access_log=False)

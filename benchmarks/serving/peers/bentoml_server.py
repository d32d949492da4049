"""BentoML with adaptive batching: room for ten requests of 100 rows in a batch, no access log."""

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType, Shape
from options import load, options

MODEL = "BENCHMARK_MODEL"  # how the server, which imports this module, learns where the model lies
Rows = Annotated[np.ndarray, DType("float32"), Shape((-1, 30))]


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Model:
    def __init__(self) -> None:
        self.booster = load(os.environ[MODEL])

    @bentoml.api(batchable=True, max_batch_size=1000)
    def predict(self, rows: Rows) -> np.ndarray:
        return self.booster.inplace_predict(rows)


if __name__ == "__main__":
    given = options()
    home = str(given.model.parent / "bentoml")
    os.environ.update({MODEL: str(given.model), "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": home})
    os.chdir(Path(__file__).parent)
    cli = str(Path(sys.executable).with_name("bentoml"))
    os.execv(cli, [cli, "serve", "bentoml_server:Model", "--host", "127.0.0.1", "--port", str(given.port)])

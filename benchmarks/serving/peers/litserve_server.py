"""LitServe: one worker process, which predicts one request at a time."""

import litserve as ls
import numpy as np
from numpy.typing import NDArray
from options import load, options


class Api(ls.LitAPI):
    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def setup(self, device: str) -> None:  # noqa: ARG002 (LitServe's signature)
        self.booster = load(self.model)

    def decode_request(self, request) -> NDArray[np.float32]:
        return np.asarray(request["rows"], np.float32)

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.booster.inplace_predict(rows)

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, list[float]]:
        return {"p": output.tolist()}


if __name__ == "__main__":
    given = options()
    server = ls.LitServer(Api(str(given.model)), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=given.port, generate_client_file=False, log_level="warning")

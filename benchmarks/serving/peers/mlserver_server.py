"""MLServer with its own XGBoost runtime; `--parallel 1` is its default, a worker process; 0 predicts in the server."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from options import options
from ports import free_ports

MODEL = "served"  # as serving/workload.py has it

if __name__ == "__main__":
    given = options(parallel=1)
    folder = Path(tempfile.mkdtemp(prefix="mlserver-", dir=given.model.parent))
    shutil.copy(given.model, folder / "model.ubj")
    grpc, metrics = free_ports(2)
    server = {
        "host": "127.0.0.1",
        "http_port": given.port,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": given.parallel,
        "debug": False,
    }
    model = {"name": MODEL, "implementation": "mlserver_xgboost.XGBoostModel", "parameters": {"uri": "model.ubj"}}
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(folder)  # it writes folders of its own where it runs
    mlserver = str(Path(sys.executable).with_name("mlserver"))
    os.execv(mlserver, [mlserver, "start", str(folder)])

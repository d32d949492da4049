"""XGBoost without scikit-learn, for as long as it is imported."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from raypipe.training.lean_import import import_xgboost
assert not {"xgboost", "numpy"} & sys.modules.keys(), "nothing was imported with it"
import_xgboost()
assert "xgboost" in sys.modules
assert not {"sklearn", "scipy.stats"} & sys.modules.keys()
import sklearn.metrics
import_xgboost()
assert sys.modules["sklearn"] is sklearn
import xgboost, numpy
rows = xgboost.DMatrix(numpy.eye(4), [0, 1, 0, 1])
print(xgboost.train({"objective": "binary:logistic", "nthread": 1}, rows, 2).num_boosted_rounds())
"""


def test_it_imports_no_scikit_learn_and_keeps_nobody_from_it():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr

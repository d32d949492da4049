"""The command line imports nothing heavy before it must."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"ray", "polars", "xgboost", "pyarrow", "mlflow", "sklearn", "dataframely", "numpy", "pandas"}
RUN = """
import sys
from raypipe.cli import main
sys.argv = ["raypipe", *{arguments}]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(*sorted({{name.partition(".")[0] for name in sys.modules}}), file=sys.stderr)
"""


def imported(*arguments: str) -> set[str]:
    code = RUN.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("serve", "--help"), ("ray-env",)])
def test_help_imports_nothing_heavy(arguments):
    assert not imported(*arguments) & HEAVY


def test_check_needs_no_ray_and_no_xgboost(tmp_path):
    from raypipe.cli.scaffold import scaffold

    scaffold(tmp_path / "project")
    found = imported("check", "--project", str(tmp_path / "project"))
    assert "polars" in found
    assert not found & {"ray", "xgboost", "mlflow"}

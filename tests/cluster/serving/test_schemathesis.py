"""schemathesis makes requests from the OpenAPI document, right ones and wrong ones: no answer is a 5xx, none is one that
the document has not. RAYPIPE_MORE_CASES makes more of them: 25 times as many examples are over 5,000 cases."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.cases import MORE

COMMAND = "from schemathesis.cli import schemathesis; schemathesis()"
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


def test_no_answer_is_undocumented(endpoint, tmp_path):
    done = subprocess.run(
        [
            sys.executable, "-c", COMMAND, "--config-file", CONFIGURATION,
            "run", f"{endpoint}/openapi.json", "--max-examples", str(15 * MORE), "--seed", "1",
            "--generation-database", "none", "--continue-on-failure", "--no-color",
        ],
        cwd=tmp_path,  # it keeps a cache there
        capture_output=True, text=True, timeout=300 * MORE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    cases = int(re.search(r"(\d[\d,]*) generated", done.stdout)[1].replace(",", ""))
    print(f"schemathesis: {cases:,} cases")
    assert cases > 500

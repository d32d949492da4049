"""Ray's memory monitor kills a worker for real: the error says so, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.cli.scaffold import scaffold

GREEDY = """
held = []


def greedy(margin, matrix):
    import numpy as np

    if len(held) < 40:  # 5 GiB a worker, should Ray not kill it
        held.append(np.ones(16 * 2**20))
    p = 1 / (1 + np.exp(-margin))
    return p - matrix.get_label(), p * (1 - p)
"""


def used_share() -> float:
    """Of this machine's memory, as Ray counts it."""
    told = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    return 1 - told["MemAvailable"] / told["MemTotal"]


@pytest.mark.slow
def test_a_worker_that_the_memory_monitor_kills_is_told_as_such(raypipe, edited, tmp_path):
    folder = tmp_path / "project"
    scaffold(folder)
    (folder / "losses.py").write_text(GREEDY)
    edited(folder, training__workers=2, training__max_failures=0, training__objective="losses:greedy")
    threshold = min(used_share() + 0.15, 0.9)  # Ray itself and two workers take less than that
    failed = raypipe(
        "train", "--project", folder, "--plan", "local", "--json", ray=None,
        RAY_memory_usage_threshold=f"{threshold:.3f}", RAY_memory_monitor_refresh_ms="100",
    )  # fmt: skip
    assert (failed.code, failed.json["error"]) == (1, "TrainingError")
    assert failed.json["what"] == "training ran out of memory"
    assert "low on memory" in failed.json["got"]
    assert "external_memory" in failed.json["hint"]
    assert not list(folder.glob(".raypipe/runs/*/manifest.json"))

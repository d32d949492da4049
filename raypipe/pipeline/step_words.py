"""What the steps say of their outcome. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from raypipe.data.digest import short
from raypipe.data.sources import PreparedSource
from raypipe.training.train import Run

SHOWN = 3  # folders of a source


def broken_rules(source: PreparedSource, folder: Path) -> Iterator[str]:
    """Rows of the source that break its contract, where they are, and warnings; places relative to `folder`."""
    if source.violations:
        broken = ", ".join(f"{rule}: {count}" for rule, count in source.violations.items())
        folders = ", ".join(str(path).removeprefix(f"{folder}/") for path in source.quarantine[:SHOWN])
        left = len(source.quarantine) - SHOWN
        more = f" and {left} more files" if left > 0 else ""
        where = f"set aside in {folders}{more}" if source.quarantine else "kept (policy: warn)"
        yield f"{source.name}: rows that break the contract ({broken}) {where}"
    yield from (f"{source.name}: {warning}" for warning in source.warnings)


def trained(run: Run) -> str:
    """Rounds, layout, rows, matrix and the metric of a finished run."""
    m = run.manifest
    resumed = f", continued after round {m['resumed_at']}" if m["resumed_at"] and not run.reused else ""
    return (
        f"run {short(run.digest)}: {m['best_round'] + 1} rounds kept of {len(m['history'])}, "
        f"{m['layout']}, {m['rows']:,} rows {m['matrix']}, "
        f"validation {m['metric']} {m['history'][m['best_round']]:.4f}{resumed}"
    )

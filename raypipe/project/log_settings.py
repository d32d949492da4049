"""`serving.log` of project.yaml: what is kept of each prediction, and for how long."""

from __future__ import annotations

from pydantic import Field

from raypipe.project.section import Section
from raypipe.project.units import Duration


class PredictionLogging(Section):
    """Every prediction becomes a row of a Delta table, `predictions/<name>` under the storage root."""

    enabled: bool = True
    sample: float = Field(1.0, ge=0, le=1)
    """Share of the keys whose requests are logged: all of a key's requests are in, or none."""
    flush_interval: Duration = "5s"
    """How long predictions wait on the machine before they become rows; a short one makes many small files."""
    spool_bytes: int = Field(64 * 1024**2, ge=4 * 1024**2)
    """Bytes that may wait on one machine while the table cannot be written; what comes on top is lost, and counted.
    Each replica holds a 64th of them; a row's record must fit into that."""
    spool: str | None = None
    """Folder on each machine in which they wait; default: one in shared memory (/dev/shm), else in TMPDIR."""
    retention: Duration | None = None
    """Days that end longer ago than this are dropped from the table; default: none is."""

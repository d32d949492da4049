"""A request that is right."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def flight() -> dict[str, Any]:
    return {
        "carrier": "UA",
        "origin": "EWR",
        "dest": "SFO",
        "tailnum": "N35236",
        "scheduled_at": "2013-11-27T12:00:00Z",
    }

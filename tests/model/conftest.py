"""Ray's settings: the models are trained on the cluster of the session."""

from __future__ import annotations

import os

from raypipe.cluster import settings

# Read when Ray is imported, which test modules do.
settings.apply(local=True)
os.environ["RAY_AUTH_MODE"] = "token"

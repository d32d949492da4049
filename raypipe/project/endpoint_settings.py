"""Parts of `serving` of project.yaml: who may ask, how many replicas answer, and TLS."""

from __future__ import annotations

from pydantic import Field, model_validator

from raypipe.project.section import Section
from raypipe.project.units import Duration


class AccessKeys(Section):
    """Files of API keys, one a line, relative to the project folder; lines with # are comments. Keep them out of git.
    The environment comes before them: RAYPIPE_API_KEYS and RAYPIPE_ADMIN_KEYS, keys split at commas."""

    keys_file: str | None = None
    """Keys of callers. While there are none, the endpoint answers everybody, and listens on loopback only."""
    admin_keys_file: str | None = None
    """Keys that open /admin/ too. While there are none, /admin/ is closed to those who need a key."""


class Autoscaling(Section):
    """How many replicas, by the number of requests that they are at."""

    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(ge=1)
    target_ongoing_requests: float = Field(2, gt=0)
    """Replicas are added while each is at more requests than this, and taken away while at fewer."""
    upscale_delay: Duration = "2s"
    """Replicas are added when their number has been too low for this long."""
    downscale_delay: Duration = "60s"
    """Replicas are taken away when their number has been too high for this long."""
    look_back: Duration = "2s"
    """Requests are averaged over this long."""

    @model_validator(mode="after")
    def _in_order(self) -> Autoscaling:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be below min_replicas")
        return self


class Tls(Section):
    """The endpoint speaks HTTPS. Paths of PEM files, relative to the project folder."""

    certificate: str
    """The certificate, followed by those that vouch for it."""
    key: str
    """The certificate's private key, without a passphrase."""

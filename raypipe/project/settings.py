"""project.yaml: every key, its type, its default and what it means. Unknown keys are refused."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_serializer

from raypipe.project.about_settings import About
from raypipe.project.endpoint_settings import AccessKeys, Autoscaling, Tls
from raypipe.project.evaluation_settings import Evaluation
from raypipe.project.lineage_settings import Lineage
from raypipe.project.log_settings import PredictionLogging
from raypipe.project.passwords import masked
from raypipe.project.section import Section
from raypipe.project.source_settings import SourceFiles
from raypipe.project.split_settings import AnySplit
from raypipe.project.telemetry_settings import Telemetry
from raypipe.project.traffic_settings import Traffic
from raypipe.project.training_settings import Training
from raypipe.project.transform_settings import TransformSettings
from raypipe.project.units import Duration, Moment


class Features(Section):
    """How the training set is built."""

    plan: Literal["auto", "local", "distributed"] = "auto"
    """local: one process. distributed: Ray Data, hash-partitioned by entity. auto: local up to `local_max_bytes`."""
    local_max_bytes: int = Field(256 * 1024**2, ge=0)
    """auto: bytes of the sources' Parquet files up to which one process builds the training set."""
    partition: Literal["day", "week", "month"] = "month"
    """Features are built and published by this much prediction time; what a late file does not reach is kept."""
    batch_rows: int = Field(32_000_000, ge=1)
    """Rows of a source up to which neighbouring partitions are built together: bounds memory, and what a kill costs."""
    task_rows: int = Field(4_000_000, ge=1)
    """distributed: rows of a source that one task works on; a hot entity's are divided by time."""
    chunk_rows: int = Field(32_768, ge=1, le=2**27)
    """Spine rows in one file of the training set."""


class Registry(Section):
    """Where runs, versions and aliases live."""

    tracking_uri: str | None = None
    """An MLflow server; default: an embedded SQLite file under `storage`. A password in it is used and never stored or
    shown."""
    who: str | None = Field(None, min_length=1)
    """Who the ledger says made a change; RAYPIPE_WHO comes before it; default: the user and host of the process."""

    @field_serializer("tracking_uri")
    def _without_password(self, uri: str | None) -> str | None:
        return uri and masked(uri)


class Serving(Section):
    """The endpoint."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback opens the endpoint to the network."""
    port: int = Field(8000, ge=1, le=65535)
    grpc_port: int | None = Field(None, ge=1, le=65535)
    """Port of the Open Inference Protocol over gRPC, on the same host; default: no gRPC."""
    replicas: int = Field(1, ge=1)
    """How many processes answer; with `autoscaling` it decides instead."""
    autoscaling: Autoscaling | None = None
    """Replicas come and go with the load; default: their number is fixed."""
    replica_cpus: float = Field(1, gt=0)
    """CPUs of the cluster that a replica counts for."""
    max_ongoing_requests: int = Field(100, ge=1)
    """Requests that one replica has at a time; one more is answered 503 with Retry-After."""
    max_queued_requests: int = Field(16, ge=1)
    """Of these, requests of more than 16 KiB, which wait for a thread of their own; one more is answered 503."""
    request_timeout: Duration | None = None
    """A request that is not answered in this time is answered 408; header x-request-timeout-seconds may shorten it."""
    access: AccessKeys = AccessKeys()
    """Who may ask."""
    tls: Tls | None = None
    """HTTPS, and gRPC over TLS; default: plain text, for loopback or for a TLS proxy in front."""
    max_rows: int = Field(1000, ge=1)
    """Rows in one request; more is answered 413."""
    max_body_bytes: int = Field(1024**2, ge=1)
    """Size of one request; more is answered 413."""
    max_bulk_rows: int = Field(100_000, ge=1)
    """Rows in one request that is an Arrow stream; more is answered 413."""
    max_bulk_bytes: int = Field(64 * 1024**2, ge=1)
    """Size of one request that is an Arrow stream; more is answered 413."""
    max_explained_rows: int = Field(100, ge=1)
    """Rows in one request with `explain: true`, each as dear as hundreds of predictions; more is answered 413."""
    as_of: Moment | None = None
    """Knowledge time of the online state; default: now. An example with old data sets it back."""
    max_past: Duration = "24h"
    """A request whose prediction time lies further than this before the online state's as-of time is refused."""
    traffic: Traffic = Traffic()
    """Canaries and shadows beside the champion; default: the champion answers everything."""
    log: PredictionLogging = PredictionLogging()
    telemetry: Telemetry = Telemetry()

    @property
    def url(self) -> str:
        """Where the endpoint answers."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class Scoring(Section):
    """Batch scoring."""

    chunk_rows: int = Field(500_000, ge=1, le=2**27)
    """Rows in one file of the scores, which is what memory holds at a time, and what a kill costs."""


class Settings(Section):
    """All of project.yaml."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    """The model's name: in the registry and in the endpoint's URLs."""
    storage: str = ".raypipe"
    """Folder for everything the project makes, relative to the project folder; RAYPIPE_STORAGE comes before it."""
    about: About = About()
    sources: dict[str, SourceFiles]
    """One entry for each Source of features.py."""
    split: AnySplit
    """By time; only where the spine has none (a static source), by a column or at random."""
    features: Features = Features()
    transforms: TransformSettings = TransformSettings()
    training: Training = Training()
    evaluation: Evaluation
    registry: Registry = Registry()
    serving: Serving = Serving()
    scoring: Scoring = Scoring()
    lineage: Lineage | None = None
    """default: no events."""

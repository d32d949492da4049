"""project.yaml: every key, its type, its default and what it means. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_serializer, model_validator

from raypipe.project.about_settings import About
from raypipe.project.endpoint_settings import AccessKeys, Autoscaling, Tls
from raypipe.project.evaluation_settings import Evaluation
from raypipe.project.lineage_settings import Lineage
from raypipe.project.log_settings import PredictionLogging
from raypipe.project.passwords import masked
from raypipe.project.section import Section
from raypipe.project.telemetry_settings import Telemetry
from raypipe.project.traffic_settings import Traffic
from raypipe.project.training_settings import Training
from raypipe.project.units import Duration, Moment, Share

_FLOAT32_MAX = 3.4028234663852886e38

OnViolation = Literal["refuse", "quarantine", "warn"]


class RulePolicy(Section):
    """What happens when rows break one rule, in place of the contract's `on_violation`."""

    on_violation: OnViolation
    max_share: float | None = Field(None, ge=0, le=1)
    """quarantine only: refuse when more than this share of the rows breaks this rule; default: the rows count towards
    the contract's `max_share`."""


class Freshness(Section):
    """How old the newest event of a source may be."""

    max_age: Duration


class Contract(Section):
    """What happens when rows or files of a source break its contract."""

    on_violation: OnViolation = "refuse"
    """refuse: stop, exit code 4. quarantine: set the rows aside with the rules they broke, go on. warn: keep them."""
    max_share: float = Field(0.01, ge=0, le=1)
    """quarantine only: refuse after all when more than this share of the rows is bad."""
    rules: dict[str, RulePolicy] = Field(default_factory=dict)
    """Rules by name ("wind_speed|max", "primary_key", a @dy.rule's own name) with a policy of their own."""
    freshness: Freshness | None = None
    """Refuse a source whose newest event is older than `max_age`; under quarantine or warn, say so and go on. Its name
    among `rules` is "freshness"."""
    on_schema_change: Literal["refuse", "allow"] = "refuse"
    """refuse: stop when a column of the contract has another type than in the last snapshot, or may now be null."""
    on_corrupt_file: Literal["refuse", "quarantine"] = "refuse"
    """quarantine: leave out a file that is no readable Parquet, list it in the manifest, go on."""

    def of(self, rule: str) -> OnViolation:
        """What happens to rows that break `rule`."""
        return self.rules[rule].on_violation if rule in self.rules else self.on_violation


class SourceFiles(Section):
    """Where a source's files lie, and the policy for bad rows."""

    path: str
    """A file, a folder or a glob, relative to the project folder, or the URI of one (s3://, gs://, az://, file://).
    Folders named `column=value` give the files in them that column. format delta: the table's folder."""
    format: Literal["parquet", "delta"] = "parquet"
    version: int | None = Field(None, ge=0)
    """format delta: the table's version; default: the newest, which the manifest records."""
    contract: Contract = Contract()

    @model_validator(mode="after")
    def _version_of_delta(self) -> SourceFiles:
        if self.version is not None and self.format != "delta":
            raise ValueError("version needs format: delta")
        return self


class TimeSplit(Section):
    """The time split, by prediction time, in UTC: train, then validation, then test."""

    train_from: Moment | None = None
    """Earliest prediction time to train on; default: the first there is."""
    validation_from: Moment
    """Where training ends and validation starts."""
    test_from: Moment
    """Where validation ends and test starts."""
    test_to: Moment | None = None
    """Where test ends; default: after the last row."""
    embargo: Duration
    """Rows whose prediction time lies this close before a boundary are left out; at least the label's horizon."""

    @model_validator(mode="after")
    def _in_order(self) -> TimeSplit:
        moments = [m for m in (self.train_from, self.validation_from, self.test_from, self.test_to) if m]
        if moments != sorted(set(moments)):
            raise ValueError("train_from < validation_from < test_from < test_to must hold")
        return self


class ColumnSplit(Section):
    """The split of a spine without time whose table says which row belongs to which part."""

    column: str
    """A column of the spine with "train", "validation" or "test"; rows with anything else are in no part."""
    validation_share: float | None = Field(None, gt=0, lt=1)
    """This share of the rows that say "train" is taken for validation, at random; default: none."""
    seed: int = 7
    """Another seed takes other rows for validation."""


class RandomShares(Section):
    """The shares of the rows that are not trained on."""

    validation: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.15, gt=0, lt=1)

    @model_validator(mode="after")
    def _some_left(self) -> RandomShares:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave nothing to train on: their sum must be below 1")
        return self


class RandomSplit(Section):
    """The split of a spine without time, at random: by a hash of the primary key (without one: of the row's number)."""

    random: RandomShares
    """{validation: 0.15, test: 0.15}; {} takes these."""
    seed: int = 7
    """Another seed puts other rows into each part."""


AnySplit = TimeSplit | ColumnSplit | RandomSplit
SPLITS = {"time split": TimeSplit, "column split": ColumnSplit, "random split": RandomSplit}  # pydantic's tags


def _kind_of_split(value: Any) -> str:
    """Which of `SPLITS` is meant: the key that no other has tells."""
    kinds = {"column": "column split", "random": "random split"}
    named = [kind for key, kind in kinds.items() if isinstance(value, dict) and key in value]
    given = [kind for kind, section in SPLITS.items() if isinstance(value, section)]
    return [*named, *given, "time split"][0]


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


class TargetEncode(Section):
    """A category becomes the smoothed share of positive labels (regression: their mean) among the rows that have it, as
    far as was known. Not with multiclass and ranking."""

    blocks: int = Field(5, ge=2, le=50)
    """Blocks of equal row counts, by prediction time, that the training split is cut into. A row is encoded by labels
    known when its block began; rows of the first block have none and are missing. More blocks: more is known."""
    smoothing: float = Field(20, ge=0, allow_inf_nan=False)
    """So many rows of the overall share (mean) are added to each category: one of few rows stays near that share."""


def _stand_in(value: Any) -> Any:
    """A string, or a number that float32 can hold."""
    if isinstance(value, str) or value is None:
        return value
    if not isinstance(value, int | float) or not abs(value) <= _FLOAT32_MAX:
        raise ValueError("must be mean, median, most_frequent, a string or a finite number")
    return float(value)


class FeatureTransform(Section):
    """What is done to one feature: a number is clipped, then imputed; a category is imputed, then encoded."""

    clip: tuple[Share, Share] | None = None
    """Numbers: two quantiles of the training split, for instance [0.01, 0.99]; values outside become the nearer one."""
    impute: Annotated[float | str | None, BeforeValidator(_stand_in)] = None
    """What stands for a missing value: `mean`, `median` or `most_frequent` of the training split (after clipping; a
    category has `most_frequent` alone), else the number or string itself."""
    target_encode: TargetEncode | None = None
    """Categories: the share of positive labels in place of a code; {} takes the defaults."""

    @model_validator(mode="after")
    def _rising(self) -> FeatureTransform:
        if self.clip and self.clip[0] >= self.clip[1]:
            raise ValueError("clip must be two rising shares, for instance [0.01, 0.99]")
        return self


class TransformSettings(Section):
    """What is learned on the training split, and on it alone, to turn features into the model's matrix."""

    rare_below: int = Field(1, ge=1)
    """Categories that fewer training rows have share one code, "rare"; 1: none is rare."""
    features: dict[str, FeatureTransform] = Field(default_factory=dict)
    """By name of a feature; one that is not named here goes into the matrix as it is."""


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
    split: Annotated[
        Annotated[TimeSplit, Tag("time split")]
        | Annotated[ColumnSplit, Tag("column split")]
        | Annotated[RandomSplit, Tag("random split")],
        Discriminator(_kind_of_split),
    ]
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

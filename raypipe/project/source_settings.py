"""`sources` of project.yaml: where the rows lie, and what happens to those that break the contract."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from raypipe.project.section import Section
from raypipe.project.units import Duration

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

"""`split` of project.yaml: which rows are trained on, which choose, which test."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from raypipe.project.section import Section
from raypipe.project.units import Duration, Moment


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


SPLITS = {"time split": TimeSplit, "column split": ColumnSplit, "random split": RandomSplit}  # pydantic's tags


def _kind_of_split(value: Any) -> str:
    """Which of `SPLITS` is meant: the key that no other has tells."""
    kinds = {"column": "column split", "random": "random split"}
    named = [kind for key, kind in kinds.items() if isinstance(value, dict) and key in value]
    given = [kind for kind, section in SPLITS.items() if isinstance(value, section)]
    return [*named, *given, "time split"][0]


AnySplit = Annotated[
    Annotated[TimeSplit, Tag("time split")]
    | Annotated[ColumnSplit, Tag("column split")]
    | Annotated[RandomSplit, Tag("random split")],
    Discriminator(_kind_of_split),
]

"""What `raypipe.Client` returns: the endpoint's answers, typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Contributions:
    """What each feature added to the margin of one output: `bias` and `by_feature` sum to `margin`."""

    margin: float
    bias: float
    by_feature: Mapping[str, float]


@dataclass(frozen=True)
class Prediction:
    """What the endpoint says of one row; what its model's task does not have is None.

    probability: binary; value: regression; score: ranking; class_name and probabilities: multiclass. feature_time: when
    the features were taken (None: the model knows no time). explanation: where it was asked for, one `Contributions`,
    of a multiclass model one by class. request_id: of the request that the row went in, for `raypipe trace`. document:
    the row's part of the answer as it came.
    """

    model_version: str
    request_id: str
    document: Mapping[str, Any]
    probability: float | None = None
    value: float | None = None
    score: float | None = None
    class_name: str | int | None = None
    probabilities: Mapping[str, float] | None = None
    feature_time: datetime | None = None
    explanation: Contributions | Mapping[str, Contributions] | None = None


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """One prediction a row, in the order of the rows. Rows of several requests may have been answered by different
    versions."""

    model: str
    predictions: tuple[Prediction, ...]

    def __len__(self) -> int:
        return len(self.predictions)

    def __getitem__(self, at: Any) -> Any:
        return self.predictions[at]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.predictions)

    @property
    def model_versions(self) -> tuple[str, ...]:
        """The versions that answered, each once."""
        return tuple(dict.fromkeys(p.model_version for p in self.predictions))

    def to_json(self) -> dict[str, Any]:
        """As the endpoint's answer to one request of all rows."""
        return {
            "model": self.model,
            "model_version": ", ".join(self.model_versions),
            "predictions": [dict(p.document) for p in self.predictions],
        }


def predictions_of(answer: Mapping[str, Any], request_id: str) -> list[Prediction]:
    """The predictions in the endpoint's answer to one request. Raises KeyError, TypeError or ValueError for a document
    that is none."""
    return [_prediction(row, str(answer["model_version"]), request_id) for row in answer["predictions"]]


def _prediction(row: Mapping[str, Any], version: str, request_id: str) -> Prediction:
    time, explanation = row.get("feature_time"), row.get("explanation")
    return Prediction(
        model_version=version,
        request_id=request_id,
        document=row,
        probability=row.get("probability"),
        value=row.get("value"),
        score=row.get("score"),
        class_name=row.get("class"),
        probabilities=row.get("probabilities"),
        feature_time=None if time is None else datetime.fromisoformat(time),
        explanation=None if explanation is None else _explanation(explanation),
    )


def _explanation(document: Mapping[str, Any]) -> Contributions | dict[str, Contributions]:
    if "contributions" in document and "bias" in document:
        return Contributions(document["margin"], document["bias"], document["contributions"])
    return {name: Contributions(c["margin"], c["bias"], c["contributions"]) for name, c in document.items()}

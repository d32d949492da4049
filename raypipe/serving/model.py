"""A loaded version: bundle and online state, from request rows to predictions. Runs in each replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import polars as pl
import xgboost as xgb
from numpy.typing import NDArray

from raypipe.definitions.label import BASE_MARGIN, PREDICTION_TIME
from raypipe.errors import RequestError
from raypipe.features.online import OnlineState
from raypipe.registry.bundle import Bundle, read_bundle
from raypipe.serving.predictors import Predictor, Predictors
from raypipe.serving.quick_rows import quick_rows
from raypipe.serving.row_reader import REFUSED, RowReader
from raypipe.serving.rows import read_rows
from raypipe.serving.trees import Floats

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Predictions:
    """What the model says of each row (raypipe.features.score), the time at which its features were taken
    (microseconds; None: no time), and what it was given: the matrix, shape (rows, features), and margins to start from.

    predictor: which form of the trees answered. known: whether every look-up view's entity is known to the online
    state, shape (rows,); where it is not, the prediction rests on empty windows or missing values. features_us: how
    long it took from the rows to the matrix; predict_us: from there to the scores.
    """

    scores: NDArray[np.float32]
    feature_time_us: NDArray[np.int64] | None
    matrix: NDArray[np.float32]
    base_margin: NDArray[np.float32] | None
    predictor: Predictor
    known: NDArray[np.bool_]
    features_us: int = 0
    predict_us: int = 0

    def parts(self, rows: Sequence[int]) -> Iterator[Predictions]:
        """Of so many rows each, in their order; the time that all took by their share of the rows."""
        at = 0
        for count in rows:
            own = slice(at, at + count)
            at += count
            yield Predictions(
                self.scores[own],
                None if self.feature_time_us is None else self.feature_time_us[own],
                self.matrix[own],
                None if self.base_margin is None else self.base_margin[own],
                self.predictor,
                self.known[own],
                self.features_us * count // len(self.scores),
                self.predict_us * count // len(self.scores),
            )


@dataclass(frozen=True, slots=True)
class Pace:
    """most_values: of a request that is predicted in the event loop. together: whether requests of a row that arrive
    together are predicted together, since that takes enough less time than one after the other."""

    most_values: int = 0
    together: bool = False


class LoadedModel:
    """One version, ready to answer.

    Raises BundleError on loading if a byte of the bundle is not what its digest promises, or if the online state is not
    of the bundle's definitions.
    """

    def __init__(self, version: str, pointer: Mapping[str, Any], max_past_us: int) -> None:
        self.version = version
        self.pace = Pace()  # known once the model is warm
        self.bundle: Bundle = read_bundle(pointer["bundle"], pointer["digest"])
        self.bundle.model.set_param({"nthread": 1})
        self._predictors = Predictors(self.bundle.model)
        self._max_past_us, self._base_margin = max_past_us, self.bundle.serving.base_margin_expression()
        self.online = OnlineState(Path(pointer["online"]), self.bundle.serving, pointer["online_identity"])
        self._reader = RowReader(self.bundle.serving)
        self._quick, self._quick_facts = quick_rows(self.online, self.bundle.transforms, self._reader, max_past_us)

    def predict_rows(self, rows: Sequence[Any]) -> Predictions:
        """Predictions for JSON rows. Raises RequestError as `predict` does, or one that names every wrong field.

        Where there is a quick way (raypipe.serving.quick_rows), it takes microseconds and no other thread; where it
        cannot answer, and for what is wrong, Polars computes them.
        """
        began_ns = perf_counter_ns()
        found = self._quick.compute(rows) if self._quick else None
        return self._score(began_ns, *found) if found else self.predict(self._frame(rows))

    def _frame(self, rows: Sequence[Any]) -> pl.DataFrame:
        try:
            return self._reader.frame(rows)
        except REFUSED:
            return read_rows(self.bundle.serving, rows)  # which says what is wrong

    def predict(self, rows: pl.DataFrame) -> Predictions:
        """Predictions for rows of the request contract. Raises RequestError for rows too far in the past, or whose base
        margin cannot be."""
        began_ns = perf_counter_ns()
        try:
            wanted = self.online.prediction_times(rows)
            with self.online.snapshot() as known:
                times = None if wanted is None else known.feature_times(wanted)
                if wanted is not None and times is not None:
                    self._refuse_the_past(wanted, times, known.as_of_us)
                features, entities_known = known.features_and_known(rows, times)
            margins = None if self._base_margin is None else self._margins(rows, self._base_margin)
            matrix = self.bundle.transforms.matrix(features)
        except pl.exceptions.PolarsError as error:
            raise RequestError("no features can be computed of these values", got=str(error).splitlines()[0]) from None
        return self._score(began_ns, matrix, margins, times, entities_known)

    def score_again(self, matrix: Floats, margins: Floats | None, predictor: Predictor) -> Floats:
        """The scores that `predictor` gave for this matrix and these margins, bit for bit."""
        return self._predictors.score(matrix, margins, predictor)

    def explain(self, matrix: Floats, margins: Floats | None) -> Floats:
        """What each feature adds to a row's margin (exact TreeSHAP), and last the margin of an average row, or its base
        margin: shape (rows, features + 1), of a multiclass model (rows, features + 1, classes). They sum to the margin.
        """
        finite = np.finfo(np.float32)
        rows = xgb.DMatrix(
            np.clip(matrix, finite.min, finite.max),  # a DMatrix refuses infinity, which goes the way of the largest
            base_margin=margins,
            feature_names=self.bundle.transforms.names,
            feature_types=self.bundle.transforms.feature_types,
            enable_categorical=True,
            nthread=1,
        )
        found = self.bundle.model.predict(rows, pred_contribs=True)
        return np.asarray(found if found.ndim == 2 else found.transpose(0, 2, 1), dtype=np.float32)

    @property
    def facts(self) -> dict[str, Any]:
        """How this version answers, for its metadata: see Predictors.facts and quick_rows."""
        return {"predictor": self._predictors.facts, "rows": self._quick_facts}

    def _score(
        self,
        began_ns: int,
        matrix: Floats,
        margins: Floats | None,
        times: NDArray[np.int64] | None,
        known: NDArray[np.bool_],
    ) -> Predictions:
        made_ns, predictor = perf_counter_ns(), self._predictors.choose(len(matrix))
        scores = self._predictors.score(matrix, margins, predictor)
        features_us, predict_us = (made_ns - began_ns) // 1000, (perf_counter_ns() - made_ns) // 1000
        return Predictions(scores, times, matrix, margins, predictor, known, features_us, predict_us)

    def _margins(self, rows: pl.DataFrame, margin: pl.Expr) -> NDArray[np.float32]:
        time = self.online.prediction_time
        timed = rows if time is None else rows.with_columns(time.alias(PREDICTION_TIME))
        margins = timed.select(margin.alias(BASE_MARGIN))[BASE_MARGIN].cast(pl.Float32).to_numpy()
        wrong = np.flatnonzero(~np.isfinite(margins))
        if len(wrong):
            reason = "the base margin that follows from these fields is missing or not finite"
            raise RequestError(
                f"{len(wrong)} rows have no base margin",
                fields=[{"row": int(wrong[0]), "field": None, "reason": reason}],
            )
        return margins

    def _refuse_the_past(self, wanted: NDArray[np.int64], times: NDArray[np.int64], as_of_us: int) -> None:
        """The state holds what was known at its as-of time; older rows would be answered with their own future."""
        late = np.flatnonzero(times - wanted > self._max_past_us)
        if len(late):
            at = moment(int(wanted[late[0]]))
            reason = f"the prediction time {at} lies too far before {moment(as_of_us)}, when the features were taken"
            raise RequestError(
                f"{len(late)} rows lie too far in the past",
                fields=[{"row": int(late[0]), "field": None, "reason": reason}],
                hint="the endpoint answers for the present; score the past with a training set's features",
            )


def moment(us: int) -> str:
    """Microseconds since 1970 as ISO 8601 in UTC."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")

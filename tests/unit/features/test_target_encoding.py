"""Target encoding is out of fold and aware of time: no row sees its own label, or one not known when its block began."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.features.transforms import Encoding, Transforms
from raypipe.features.transforms_fit import fit
from raypipe.project.transform_settings import TransformSettings

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
SCHEMA = {"x": pl.String, "prediction_time": TIME, "label_known_time": TIME, "label": pl.Boolean}
Row = tuple[str | None, int, int | None, bool]  # category, minute asked, minute known, label


def frame(rows: list[Row]) -> pl.DataFrame:
    def at(minute):
        return None if minute is None else START + timedelta(minutes=minute)

    return pl.DataFrame([(x, at(t), at(known), y) for x, t, known, y in rows], SCHEMA, orient="row")


def learn(rows: list[Row], rare_below: int = 1, impute: str | None = None, **chosen) -> Transforms:
    settings = {"rare_below": rare_below, "features": {"x": {"target_encode": chosen, "impute": impute}}}
    return fit({"x": pl.String()}, frame(rows).lazy(), TransformSettings(**settings))


def encoded(transforms: Transforms, rows: list[Row], *, training: bool) -> list[float]:
    return transforms.matrix(frame(rows), training=training)[:, 0].tolist()


def final(transforms: Transforms, categories: list[str | None]) -> list[float]:
    return transforms.matrix(pl.DataFrame({"x": categories}, {"x": pl.String}))[:, 0].tolist()


# ---- by hand -----------------------------------------------------------------------------------

NAN = float("nan")
BY_HAND: list[Row] = [
    ("a", 0, 5, True),
    ("a", 1, 2, False),
    ("b", 2, 3, True),
    ("a", 3, 4, True),  # the second block begins: the second and the third label are known
    (None, 4, 5, False),
    ("c", 5, 9, True),
    ("a", 6, 9, False),  # the third block begins: the labels of the first five rows are known
    ("b", 7, None, False),
    ("a", 8, 9, True),
]


def test_by_hand(same):
    transforms = learn(BY_HAND, blocks=3, smoothing=2)
    prior = (1 / 2, 3 / 5, 5 / 9)
    second = [(0 + 2 * prior[0]) / (1 + 2), NAN, prior[0]]
    third = [(2 + 2 * prior[1]) / (3 + 2), (1 + 2 * prior[1]) / (1 + 2)]
    expected = [NAN, NAN, NAN, *second, third[0], third[1], third[0]]
    same(encoded(transforms, BY_HAND, training=True), np.float32(expected).tolist())
    whole = [(3 + 2 * prior[2]) / 7, (1 + 2 * prior[2]) / 4, (1 + 2 * prior[2]) / 3, prior[2], NAN]
    same(final(transforms, ["a", "b", "c", "zzz", None]), np.float32(whole).tolist())
    assert transforms.feature_types == ["q"]
    assert transforms.features["x"].codes == {"a": 0, "b": 1, "c": 2}


def test_other_rows_get_the_whole_split_whatever_their_time():
    transforms = learn(BY_HAND, blocks=3, smoothing=2)
    categories = [row[0] for row in BY_HAND]
    np.testing.assert_array_equal(encoded(transforms, BY_HAND, training=False), final(transforms, categories))


def test_rare_categories_are_encoded_together():
    rows = [(x, t, t, y) for t, (x, y) in enumerate([("a", 1), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("d", 0)])]
    a, b, c, d, unseen = final(learn(rows, rare_below=2, blocks=2, smoothing=0), list("abcde"))
    assert (a, b, c, d, unseen) == (1, 0.5, 0, 0, 0.5)


def test_an_imputed_null_is_encoded_as_its_category(same):
    rows = [("a", 0, 0, True), (None, 1, 1, False), ("b", 2, 2, False), (None, 3, 3, True)]
    same(
        final(learn(rows, impute="b", blocks=2, smoothing=0), [None, "b", "a"]), np.float32([1 / 3, 1 / 3, 1]).tolist()
    )
    same(final(learn(rows, impute="none", blocks=2, smoothing=0), [None, "b", "a"]), [0.5, 0, 1])


@pytest.mark.parametrize(
    ("minutes", "blocks", "starts"),
    [
        (range(10), 5, [0, 2, 4, 6, 8]),
        (range(10), 3, [0, 3, 6]),
        (range(3), 5, [0, 1, 2]),
        ([0, 0, 0, 0, 1, 1], 3, [0, 1]),  # the second block would begin inside of minute 0
        ([7, 7, 7], 4, [7]),
    ],
)
def test_blocks_of_equal_rows(minutes, blocks, starts):
    transforms = learn([("a", t, t + 1, True) for t in minutes], blocks=blocks)
    at = [START + timedelta(minutes=t) for t in starts]
    assert transforms.features["x"].encoding.starts == [int(t.timestamp() * 1e6) for t in at]


def test_a_feature_that_is_null_everywhere(same):
    rows = [(None, 0, 1, True), (None, 2, 3, False)]
    transforms = learn(rows, blocks=2, smoothing=0)
    same(encoded(transforms, rows, training=True), [NAN, NAN])
    same(final(transforms, ["a", None]), [0.5, NAN])


def test_no_rows(same):
    transforms = learn([], blocks=2)
    assert transforms.features["x"].encoding == Encoding([], [], [None])
    same(final(transforms, ["a", None]), [NAN, NAN])


# ---- against plain Python ----------------------------------------------------------------------

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None]), st.integers(0, 12), st.none() | st.integers(-3, 15), st.booleans()
    ),
    min_size=1,
    max_size=25,
)
CHOSEN = st.fixed_dictionaries({"blocks": st.integers(2, 6), "smoothing": st.sampled_from([0, 0.5, 20])})


def block_start(rows: list[Row], blocks: int, time: int) -> int:
    times = sorted(t for _, t, _, _ in rows)
    return max(times[k * len(rows) // blocks] for k in range(blocks) if times[k * len(rows) // blocks] <= time)


def share(rows: list[Row], category: str | None, smoothing: float) -> float:
    """The smoothed share of positive labels of a category among `rows`."""
    if not rows or category is None:
        return NAN
    prior = sum(y for *_, y in rows) / len(rows)
    mine = [y for x, *_, y in rows if x == category]
    return float(np.float32((sum(mine) + smoothing * prior) / (len(mine) + smoothing) if mine else prior))


@given(rows=ROWS, chosen=CHOSEN)
def test_each_row_is_encoded_by_what_was_known(same, rows, chosen):
    transforms = learn(rows, **chosen)
    expected = []
    for x, t, _, _ in rows:
        start = block_start(rows, chosen["blocks"], t)
        known = [r for r in rows if r[1] < start and r[2] is not None and r[2] <= start]
        expected.append(share(known, x, chosen["smoothing"]))
    same(encoded(transforms, rows, training=True), expected)
    same(final(transforms, ["a", "b", "c", "d", None]), [share(rows, x, chosen["smoothing"]) for x in [*"abcd", None]])


@given(rows=ROWS, chosen=CHOSEN, data=st.data())
def test_no_label_that_was_not_known_has_a_part_in_it(same, rows, chosen, data):
    """Any labels that were not known when a row's block began, its own among them, may be others."""
    at = data.draw(st.integers(0, len(rows) - 1))
    start = block_start(rows, chosen["blocks"], rows[at][1])
    others = [
        (x, t, known, y if i != at and known is not None and known <= start else data.draw(st.booleans()))
        for i, (x, t, known, y) in enumerate(rows)
    ]
    before, after = (encoded(learn(r, **chosen), rows, training=True)[at] for r in (rows, others))
    same([after], [before])


@given(rows=ROWS, chosen=CHOSEN, data=st.data())
def test_the_order_of_rows_changes_nothing(rows, chosen, data):
    learned = [learn(r, rare_below=2, **chosen) for r in (rows, data.draw(st.permutations(rows)))]
    assert orjson.dumps(learned[0].to_json()) == orjson.dumps(learned[1].to_json())


def test_files_change_nothing(tmp_path):
    rows = [("abc"[i % 3], i * 7 % 40, i * 7 % 40 + i % 5, i % 4 == 0) for i in range(200)]
    for i in range(0, 200, 30):
        frame(rows[i : i + 30]).write_parquet(tmp_path / f"{i:03}.parquet")
    settings = TransformSettings(features={"x": {"target_encode": {}}})
    assert fit({"x": pl.String()}, pl.scan_parquet(tmp_path / "*.parquet"), settings) == learn(rows)

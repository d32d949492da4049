"""The search for the worst slices, on rows that are made so that the answer is known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from scipy.stats import binom

from raypipe.evaluation.avoidable import correctable
from raypipe.evaluation.binning import Binned, binned, frequent
from raypipe.evaluation.metrics import Scored
from raypipe.evaluation.slice_search import Search, holm, search
from raypipe.project.slice_settings import WorstSlices
from tests.cases import MORE

ROWS, DAYS = 12_000, 60


def columns(dice, rows: int = ROWS) -> pl.DataFrame:
    """Six columns that have nothing to do with each other."""
    return pl.DataFrame(
        {
            "shop": dice.choice(list("abcdefgh"), rows),
            "kind": dice.choice(["x", "y", "z"], rows, p=[0.8, 0.15, 0.05]),
            "open": dice.random(rows) < 0.5,
            **{name: dice.normal(0, 1, rows) for name in ("age", "size", "load")},
        }
    )


def asked(
    frame: pl.DataFrame, found: Scored, task: str = "binary", *, confidence=0.95, blocks=None, **settings
) -> Search:
    chosen = WorstSlices(**settings)
    bins = {name: frequent(binned(frame[name], chosen.bins), chosen.least_rows) for name in frame.columns}
    blocks = np.arange(frame.height) % DAYS if blocks is None else blocks
    return Search(correctable(task, found), blocks, bins, list(bins), chosen, confidence)


def where(found) -> list[dict[str, str | None]]:
    return [dict(one.where) for one in found]


# ---- what is bad is found ----------------------------------------------------------------------


def planted(seed: int, inside, how: str, rows: int = ROWS) -> tuple[pl.DataFrame, Scored]:
    """Right scores, but for rows `inside`."""
    dice = np.random.default_rng(seed)
    frame = columns(dice, rows)
    odds = dice.normal(-0.5, 1.0, rows)
    bad = frame.select(inside).to_series().to_numpy()
    true = np.where(bad, {"low": odds + 0.9, "high": odds - 0.9, "noise": dice.permutation(odds)}[how], odds)
    return frame, Scored((dice.random(rows) < expit(true)).astype(float), expit(odds))


@pytest.mark.parametrize("how", ["low", "high", "noise"])
def test_a_planted_slice_is_found_first(how):
    frame, found = planted(1, pl.col("shop") == "c", how)
    count, slices = search(asked(frame, found))
    assert count > 300
    assert where(slices) == [{"shop": "c"}]
    (one,) = slices
    assert one.rows == (frame["shop"] == "c").sum()
    assert one.loss.low > one.rest
    assert one.p_value < one.p_adjusted < 0.05


def test_a_planted_pair_is_found_first():
    frame, found = planted(2, (pl.col("shop") == "c") & pl.col("open"), "low")
    assert where(search(asked(frame, found))[1]) == [{"shop": "c", "open": "True"}]


def test_two_planted_slices_are_found_the_worse_one_first():
    frame, found = planted(3, pl.col("shop") == "c", "low", 40_000)
    worse = ((pl.col("kind") == "y") & (pl.col("shop") != "c")).alias("worse")
    swapped = np.where(frame.select(worse).to_series(), 1 - found.label, found.label)
    slices = search(asked(frame, Scored(swapped, found.score)))[1]
    assert where(slices)[:2] == [{"kind": "y"}, {"shop": "c"}]


def test_a_slice_of_numbers_is_found_by_its_squared_error():
    dice = np.random.default_rng(4)
    frame = columns(dice)
    score = dice.normal(10, 3, ROWS)
    wide = np.where(frame["kind"] == "z", 5.0, 1.0)  # no fault of the model
    off = np.where(frame["shop"] == "c", 0.8, 0.0)
    found = Scored(score + off + dice.normal(0, 1, ROWS) * wide, score)
    (one,) = search(asked(frame, found, "regression"))[1]
    assert dict(one.where) == {"shop": "c"}
    assert one.loss.low < 0.8**2 < one.loss.high
    assert one.observed - one.predicted == pytest.approx(0.8, abs=0.2)


def test_a_slice_of_classes_is_found():
    dice = np.random.default_rng(5)
    frame = columns(dice)
    score = dice.dirichlet([3, 2, 1], ROWS)
    drawn = (dice.random(ROWS)[:, None] > score.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    label = np.where(frame["shop"] == "c", dice.integers(0, 3, ROWS), drawn).astype(float)
    assert where(search(asked(frame, Scored(label, score), "multiclass"))[1]) == [{"shop": "c"}]


def test_missing_values_are_a_slice():
    frame, found = planted(6, pl.col("shop") == "c", "low")
    frame = frame.with_columns(pl.col("shop").replace("c", None))
    assert where(search(asked(frame, found))[1]) == [{"shop": None}]


def test_the_interval_of_what_is_avoidable_holds_the_true_value():
    """Scores of 0.3 where half are positive: log(2) is the least loss, KL(1/2 | 0.3) is avoidable."""
    expected, hits = -0.5 * np.log(4 * 0.3 * 0.7), 0
    for seed in range(60):
        dice = np.random.default_rng(seed)
        frame = pl.DataFrame({"shop": dice.choice(list("ab"), 4000, p=[0.2, 0.8])})
        true = np.where(frame["shop"] == "a", 0.5, 0.3)
        found = Scored((dice.random(4000) < true).astype(float), np.full(4000, 0.3))
        (one,) = search(asked(frame, found))[1]
        assert dict(one.where) == {"shop": "a"}
        hits += one.loss.low <= expected <= one.loss.high
    assert hits >= binom.ppf(0.001, 60, 0.95)


def test_an_integer_weight_is_worth_as_much_as_rows():
    frame, found = planted(7, pl.col("shop") == "c", "low")
    weight = np.random.default_rng(0).integers(1, 3, ROWS)
    (once,) = search(asked(frame, Scored(found.label, found.score, weight.astype(float))))[1]
    again = np.repeat(np.arange(ROWS), weight)
    (twice,) = search(asked(frame[again], found.take(again), blocks=again % DAYS))[1]
    assert once.where == twice.where
    assert once.loss.value == pytest.approx(twice.loss.value, rel=0.02)
    assert (once.predicted, once.observed) == pytest.approx((twice.predicted, twice.observed))


# ---- what is not bad is not --------------------------------------------------------------------


def test_a_hard_slice_is_not_a_bad_one():
    """Half of its rows are positive, as its scores say; elsewhere it is one in fifty. Its log loss is seven times as
    high, and it has no skill beyond its own constant."""
    dice = np.random.default_rng(8)
    frame = columns(dice, 40_000)
    hard = (frame["shop"] == "c").to_numpy()
    score = np.where(hard, 0.5, expit(dice.normal(-4, 0.5, 40_000)))
    found = Scored((dice.random(40_000) < score).astype(float), score)
    loss = -np.log(np.where(found.label == 1, score, 1 - score))
    assert loss[hard].mean() > 6 * loss[~hard].mean()
    assert search(asked(frame, found, least_effect=0))[1] == []


def test_scores_that_are_off_everywhere_are_no_slice():
    dice = np.random.default_rng(9)
    frame = columns(dice)
    odds = dice.normal(-1, 1, ROWS)
    found = Scored((dice.random(ROWS) < expit(odds + 0.7)).astype(float), expit(odds))
    assert search(asked(frame, found))[1] == []


def test_where_scores_are_right_and_elsewhere_wrong_is_no_bad_slice():
    frame, found = planted(10, pl.col("kind") != "y", "low")
    assert {"kind": "y"} not in where(search(asked(frame, found))[1])


def test_a_difference_too_small_to_matter_is_not_told():
    frame, found = planted(1, pl.col("shop") == "c", "low")
    assert search(asked(frame, found, least_effect=0.5))[1] == []


def test_one_bad_day_is_not_a_bad_slice():
    """All rows of shop c on a busy day are wrong. As so many rows that would be news; it is one day."""
    frame, found = planted(11, pl.lit(value=False), "low", 40_000)
    day = np.where(np.random.default_rng(0).random(40_000) < 0.15, 3, np.arange(40_000) % DAYS)
    wrong = (frame["shop"] == "c").to_numpy() & (day == 3)
    found = Scored(np.where(wrong, 1.0, found.label), found.score)
    by_row = search(asked(frame, found, blocks=np.arange(40_000), least_effect=0.001))[1]
    assert {"shop": "c"} in where(by_row)
    assert {"shop": "c"} not in where(search(asked(frame, found, blocks=day, least_effect=0.001))[1])


# ---- no slice twice ----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.03], ids=["the same", "nearly the same"])
def test_a_slice_that_another_tells_is_left_out(share):
    frame, found = planted(12, pl.col("shop") == "c", "low")
    dice = np.random.default_rng(0)
    changed = np.where(dice.random(ROWS) < share, dice.choice(list("abcdefgh"), ROWS), frame["shop"])
    frame = frame.with_columns(twin=pl.Series(changed), half=pl.Series(changed).is_in(["c", "d"]))
    assert len(search(asked(frame, found))[1]) == 1


def test_only_pairs_of_the_columns_that_are_paired_are_tested():
    frame, found = planted(13, pl.lit(value=False), "low")
    every = asked(frame, found)
    none = Search(every.rows, every.blocks, every.columns, [], every.settings, every.confidence)
    assert search(none)[0] == sum(len(column.names) for column in none.columns.values())
    two = Search(every.rows, every.blocks, every.columns, ["open", "age"], every.settings, every.confidence)
    assert search(two)[0] == search(none)[0] + 2 * 5


def test_slices_that_are_too_small_are_not_tested():
    frame, found = planted(14, pl.lit(value=False), "low", 3000)
    small = asked(frame.select("open", "kind"), found, least_rows=400)
    sizes = [frame.filter(pl.col("kind") == kind).height for kind in "xyz"]
    pairs = [
        frame.filter(pl.col("kind") == kind, pl.col("open") == is_).height for kind in "xyz" for is_ in (True, False)
    ]
    assert search(small)[0] == 2 + sum(size >= 400 for size in (*sizes, *pairs))


def test_without_anything_to_search_nothing_is_tested():
    found = Scored(np.array([0.0, 1.0]), np.array([0.2, 0.3]))
    column = {"a": Binned(np.array([0, 0]), [])}
    for columns in (column, {}):
        assert search(
            Search(correctable("binary", found), np.arange(2), columns, list(columns), WorstSlices(), 0.95)
        ) == (0, [])


def test_holm_by_hand():
    """0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 no less than the one before."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.7, 0.6])).tolist() == [1, 1]


# ---- noise is not news -------------------------------------------------------------------------


def independent(dice, frame):
    odds = dice.normal(-0.5, 1.0, frame.height)
    return "binary", Scored((dice.random(frame.height) < expit(odds)).astype(float), expit(odds)), None


def rare(dice, frame):
    score = expit(dice.normal(-4.5, 0.7, frame.height))
    return "binary", Scored((dice.random(frame.height) < score).astype(float), score), None


def by_day(dice, frame):
    """Each day has its luck, and each shop its own on each day."""
    day = np.arange(frame.height) % DAYS
    shop = frame["shop"].cast(pl.Enum(list("abcdefgh"))).to_physical().to_numpy()
    luck = dice.normal(0, 0.4, DAYS)[day] + dice.normal(0, 0.4, (DAYS, 8))[day, shop]
    odds = dice.normal(-0.5, 1.0, frame.height)
    return "binary", Scored((dice.random(frame.height) < expit(odds + luck)).astype(float), expit(odds)), day


def heavy(dice, frame):
    """Errors of Student's t with three degrees of freedom, ten times as wide in one shop."""
    score = dice.normal(0, 1, frame.height)
    wide = np.where(frame["shop"] == "a", 10, 1)
    return "regression", Scored(score + wide * dice.standard_t(3, frame.height), score), None


def weighted(dice, frame):
    task, found, blocks = independent(dice, frame)
    return task, Scored(found.label, found.score, dice.exponential(1, frame.height)), blocks


@pytest.mark.slow
@pytest.mark.parametrize("draw", [independent, rare, by_day, heavy, weighted])
def test_on_noise_the_stated_share_of_data_sets_has_a_finding_at_most(draw):
    """However small the effects that are told."""
    count, found = 60 * MORE, 0
    for seed in range(count):
        dice = np.random.default_rng(seed)
        frame = columns(dice, 6000)
        task, scored, blocks = draw(dice, frame)
        found += bool(search(asked(frame, scored, task, blocks=blocks, least_effect=0, confidence=0.9))[1])
    assert found <= binom.ppf(0.99, count, 0.1)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.errors import ClusterError
from raypipe.tuning import journal
from raypipe.tuning.choose import choose, pareto
from raypipe.tuning.layout import Seats, choose_seats

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("maximize", "within", "number"),
    [
        (False, None, 1),
        (False, 0.0, 1),
        (False, 0.002, 3),  # 0.3019 is within, 0.3021 is not, however small
        (False, 0.01, 2),
        (True, None, 4),
    ],
)
def test_the_least_second_objective_within_the_tolerance(finished, maximize, within, number):
    trials = [
        finished(0, 0.31, 50), finished(1, 0.30, 90), finished(2, 0.3021, 10), finished(3, 0.3019, 40),
        finished(4, 0.4, 30), finished(5, None),
    ]  # fmt: skip
    assert choose(trials, maximize=maximize, within=within).number == number


def test_the_first_of_equals(finished):
    assert choose([finished(2, 0.3), finished(1, 0.3)], maximize=False).number == 1


@given(points=POINTS)
def test_the_front_is_what_no_other_beats(finished, points):
    trials = [finished(i, float(v), float(s)) for i, (v, s) in enumerate(points)]
    front = pareto(trials, maximize=False)
    beaten = {
        a for a in points for b in points if b != a and b[0] <= a[0] and b[1] <= a[1]
    }  # fmt: skip
    assert {(int(t.value), int(t.second)) for t in front} == set(points) - beaten
    assert [t.value for t in front] == sorted({t.value for t in front})


def test_the_front_of_a_metric_to_maximise(finished):
    trials = [finished(0, 0.9, 5.0), finished(1, 0.8, 1.0), finished(2, 0.7, 2.0)]
    assert [t.number for t in pareto(trials, maximize=True)] == [0, 1]


# ---- the journal -------------------------------------------------------------------------------


def test_what_is_appended_is_read(finished, tmp_path):
    path = tmp_path / "new" / "trials.jsonl"
    trials = [finished(1, 0.5, 7.0, reports=[(3.0, 0.6), (6.0, 0.5)]), finished(0, 0.4), finished(2, None, error="why")]
    for trial in trials:
        journal.append(path, trial)
    assert journal.read(path) == [trials[1], trials[0], trials[2]]


def test_a_torn_line_is_a_trial_that_has_not_ended(finished, tmp_path):
    path = tmp_path / "trials.jsonl"
    for number in range(2):
        journal.append(path, finished(number, 0.5))
    whole = path.read_bytes()
    last = len(whole.splitlines()[1])
    for cut in (1, 2, last // 2, last):
        path.write_bytes(whole[:-cut])
        journal.append(path, finished(2, 0.5))
        numbers = [trial.number for trial in journal.read(path)]
        assert numbers == ([0, 1, 2] if cut == 1 else [0, 2]), "only the line's end was lost" if cut == 1 else cut


def test_of_two_lines_about_a_trial_the_first_counts(finished, tmp_path):
    for value in (0.5, 0.6):
        journal.append(tmp_path / "trials.jsonl", finished(1, value))
    assert [trial.value for trial in journal.read(tmp_path / "trials.jsonl")] == [0.5]


def test_no_journal_is_no_trial(tmp_path):
    assert journal.read(tmp_path / "none") == []


# ---- how many at a time ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "needed", "nodes", "free", "trials", "seats"),
    [
        (1_000_000, 10, [8], 1000, 40, Seats(8, 1)),
        (1_000_000, 10, [8], 1000, 3, Seats(3, 1)),
        (1_000_000, 300, [8], 1000, 40, Seats(3, 1)),  # three fit into memory
        (1_000_000, 10, [8, 4], 1000, 40, Seats(12, 1)),
        (900_000_000, 10, [8], 1000, 40, Seats(1, 8)),
        (900_000_000, 10, [8, 4], 1000, 40, Seats(3, 4)),
    ],
)
def test_seats(cells, needed, nodes, free, trials, seats):
    assert choose_seats(cells, needed, nodes, free, trials) == seats


def test_a_trial_that_does_not_fit_into_memory_is_refused():
    with pytest.raises(ClusterError, match="do not fit into memory") as refused:
        choose_seats(1000, 3 * 2**20, [2], 2**21, 40)
    assert (refused.value.got, refused.value.expected) == ("2 MiB free", "3 MiB")

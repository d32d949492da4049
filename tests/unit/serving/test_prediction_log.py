"""A replica's log: who is in it, what it may hold, what is lost and counted, and that a request never waits for it."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable

from raypipe.serving.model import Predictions
from raypipe.serving.prediction_log.flush import Flusher
from raypipe.serving.prediction_log.log import PredictionLog, log_for
from raypipe.serving.prediction_log.personal import KEY_VARIABLE, Personal
from raypipe.serving.prediction_log.records import LoggedVersion
from raypipe.serving.prediction_log.table import PredictionTable
from raypipe.serving.record import Served

_SPEC = importlib.util.spec_from_file_location("log_process", Path(__file__).with_name("log_process.py"))
process = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(process)

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def opened(tmp_path):
    """Open a log in the test's folder, which flushes in a thread; it is closed at the end."""
    logs = []

    def open_log(versions=process.VERSIONS, **changes) -> PredictionLog:
        config = process.config(tmp_path, **changes)
        flusher = Flusher(config.the_spool(), config.the_table())
        logs.append(PredictionLog(config, "replica-1", versions, flusher))
        return logs[-1]

    yield open_log
    for log in logs:
        log.close(1)


def rows(folder: Path) -> pl.DataFrame:
    return pl.DataFrame(DeltaTable(folder / "table").to_pyarrow_table())


def wait_for(done, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_predictions_reach_the_table_while_it_is_open(opened, tmp_path):
    log = opened()
    for at in range(10):
        log.observe(process.request(f"{at}"))
    wait_for(lambda: log.counts.written == 10)
    log.observe(process.request("late"))
    assert log.close()
    assert sorted(rows(tmp_path)["request_id"]) == sorted([*map(str, range(10)), "late"])
    assert (log.counts.accepted, log.counts.written, log.counts.lost.total()) == (11, 11, 0)
    assert list(log.spool.segments()) == []
    told = log.gauges()
    assert (told["log_accepted"], told["log_written"], told["log_lost"]) == (11, 11, 0)
    assert (told["log_waiting_bytes"], told["log_flush_failures"]) == (0, 0)
    assert told["log_flush_seconds"] > 0


def test_what_is_finished_during_a_flush_waits_for_the_next(opened, tmp_path, monkeypatch):
    """Else a flush under load never ends, and its commits hold little."""
    log = opened(flush_interval_s=1e9)
    log._stopping.set()
    log._thread.join()
    log._stopping.clear()
    flush, later = log._flusher.flush, iter("bcde")

    def finish(name: str) -> None:
        log.observe(process.request(name))
        log._segment.finish()
        log._segment = log._created()

    def flush_and_finish() -> object:
        done = flush()
        finish(next(later))
        return done

    monkeypatch.setattr(log._flusher, "flush", flush_and_finish)
    finish("a")
    for tick, there in enumerate(["a", "ab"], start=2):
        log._flush_if_due(tick * 1e9 + 1)
        assert sorted(rows(tmp_path)["request_id"]) == list(there)
    assert log.counts.failures == 0


def test_what_comes_after_the_end_is_counted_as_lost(opened):
    log = opened()
    log.close()
    log.observe(process.request("late", rows=3))
    assert log.counts.lost == {"closed": 3}


def test_all_requests_of_a_key_are_in_or_none(opened, tmp_path):
    log = opened(sample=0.25)
    for at in range(4000):
        log.observe(process.request(f"key-{at % 2000}"))
    log.close()
    times = rows(tmp_path).group_by("request_id").len()
    assert set(times["len"]) == {2}
    assert pytest.approx(times.height, abs=4 * (2000 * 0.25 * 0.75) ** 0.5) == 0.25 * 2000


def test_a_larger_sample_keeps_who_was_in_the_smaller_one(opened, tmp_path):
    found = {}
    for share in (0.1, 0.5):
        log = opened(sample=share, table=str(tmp_path / f"table-{share}"), spool=str(tmp_path / f"spool-{share}"))
        for at in range(200):
            log.observe(process.request(f"key-{at}"))
        log.close()
        found[share] = set(pl.DataFrame(DeltaTable(tmp_path / f"table-{share}").to_pyarrow_table())["request_id"])
    assert set() < found[0.1] < found[0.5]


def test_many_threads_lose_nothing(opened, tmp_path):
    log = opened()

    def work(name: int) -> None:
        for at in range(300):
            log.observe(process.request(f"{name}-{at}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert rows(tmp_path)["request_id"].n_unique() == rows(tmp_path).height == log.counts.accepted == 1800


def test_a_request_of_many_rows_is_cut_and_put_together_again(opened, tmp_path):
    log = opened()
    count = 3 * log.spool.segment_bytes // 100
    matrix = np.random.default_rng(1).random((count, 5), dtype=np.float32)
    frame = pl.DataFrame({"at": range(count)})
    made = Predictions(
        matrix[:, 0].copy(), np.arange(count), matrix, matrix[:, 1].copy(), "xgboost", np.ones(count, bool)
    )
    log.observe(Served("bulk", 1, "m", "1", "k", frame, made))
    log.close()
    found = rows(tmp_path).sort("row")
    assert found["row"].to_list() == list(range(count))
    assert found["fields"].to_list() == [f'{{"at":{at}}}' for at in range(count)]
    assert found["features"].explode().to_numpy().tobytes() == matrix.tobytes()
    assert found["base_margin"].to_numpy().tobytes() == matrix[:, 1].tobytes()
    assert found["feature_time"].dt.epoch("us").to_list() == list(range(count))


@pytest.mark.parametrize("personal", [(), ("user",)])
def test_many_json_rows_are_told_as_they_were_sent_but_for_personal_ones(opened, tmp_path, personal):
    log = opened(personal=personal)
    texts = [f'{{"user": "u{at}", "x": {at}.50}}' for at in range(log.spool.segment_bytes // 20)]
    body = f'{{"rows": [{", ".join(texts)}]}}'.encode()
    matrix = np.ones((len(texts), 2), np.float32)
    made = Predictions(matrix[:, 0].copy(), None, matrix, None, "compiled", np.ones(len(texts), bool))
    log.observe(Served("bulk", 1, "m", "1", "k", json.loads(body)["rows"], made, body=body))
    log.close()
    found = rows(tmp_path).sort("row")
    if personal:
        assert [json.loads(text)["x"] for text in found["fields"]] == [at + 0.5 for at in range(len(texts))]
        assert not found["fields"].str.contains('"u', literal=True).any()
    else:
        assert found["fields"].to_list() == texts


def test_a_request_is_lost_only_if_it_does_not_fit_into_the_spool(opened, tmp_path):
    log = opened()
    texts = {"fits": "x" * 2 * log.spool.segment_bytes, "large": "x" * log.spool.max_bytes}
    for name, text in texts.items():
        log.observe(Served(name, 1, "m", "1", "k", [{"user": text}], process.request(name).predictions))
    log.observe(process.request("small"))
    log.close()
    log.observe(Served("late", 1, "m", "1", "k", [{"user": texts["fits"]}], process.request("late").predictions))
    assert (log.counts.lost, log.counts.accepted) == ({"full": 1, "closed": 1}, 2)
    found = dict(rows(tmp_path).select("request_id", "fields").iter_rows())
    assert found.keys() == {"fits", "small"}
    assert json.loads(found["fits"])["user"] == texts["fits"]


def test_fields_that_are_no_json_are_lost_and_nothing_is_raised(opened):
    log = opened()
    log.observe(Served("odd", 1, "m", "1", "k", [{"user": object()}], process.request("a").predictions))
    log.observe(Served("unknown", 1, "m", "7", "k", [{}], process.request("a").predictions))
    assert log.counts.lost == {"record": 2}


class Gate:
    """A table that is slow or gone as long as it is shut."""

    def __init__(self, monkeypatch, *, fails: bool) -> None:
        self.open, self.tried, inner = threading.Event(), 0, PredictionTable.append

        def append(table, *arguments):
            self.tried += 1
            if not self.open.is_set() and fails:
                raise OSError(5, "the storage is gone")
            self.open.wait()
            inner(table, *arguments)

        monkeypatch.setattr(PredictionTable, "append", append)


@pytest.mark.parametrize("fails", [False, True], ids=["hangs", "fails"])
def test_while_the_storage_is_gone_it_holds_back_up_to_its_bound_and_counts_the_rest(
    opened, tmp_path, monkeypatch, fails
):
    gate = Gate(monkeypatch, fails=fails)
    log = opened(spool_bytes=1024**2)
    sent = 0
    while log.counts.lost["full"] < 500:
        log.observe(process.request(f"{sent}"))
        sent += 1
        assert sent % 50 or log.spool.bytes() <= 1024**2
    wait_for(lambda: gate.tried)
    assert log.counts.accepted + log.counts.lost["full"] == sent
    assert log.counts.bytes < 1024**2
    gate.open.set()
    wait_for(lambda: log.counts.written > 0)
    before = log.counts.lost.total()
    log.observe(process.request("after"))
    wait_for(lambda: log.counts.lost.total() > before or log.counts.accepted + before == sent + 1)
    assert log.close(30)
    found = rows(tmp_path)["request_id"]
    assert found.len() == found.n_unique() == log.counts.accepted
    assert (log.counts.failures > 0) == fails


def test_a_spool_that_cannot_be_made_loses_and_recovers(opened, tmp_path):
    (tmp_path / "spool").write_text("no folder")
    log = opened()
    log.observe(process.request("lost"))
    assert log.counts.lost == {"spool": 1}
    (tmp_path / "spool").unlink()
    wait_for(log.spool.segments)
    log.observe(process.request("kept"))
    assert log.close()
    assert rows(tmp_path)["request_id"].to_list() == ["kept"]


def test_personal_values_are_in_no_file(opened, tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    log = opened({"1": LoggedVersion("b" * 64, withheld=(0,))}, personal=("user",))
    for at in range(3):
        log.observe(process.request(f"secret-{at}"))  # the id is what the caller gave: not a field
    spooled = b"".join(path.read_bytes() for path in log.spool.segments())
    assert b'"user":"secret' not in spooled
    log.close()
    wanted = [Personal(frozenset(), KEY.encode()).hashed(f"secret-{at}") for at in range(3)]
    found = rows(tmp_path).sort("request_id")
    assert found["fields"].to_list() == [f'{{"user":"{value}"}}' for value in wanted]
    assert found["key_hash"].to_list() == wanted
    assert found["features"].list.get(0).null_count() == 3


def test_other_settings_are_followed_and_another_place_is_another_log(opened, tmp_path):
    log = opened()
    assert log.follow(process.config(tmp_path, sample=0.0), {"2": LoggedVersion("c" * 64)})
    log.observe(process.request("not logged"))
    assert log.follow(process.config(tmp_path), {"2": LoggedVersion("c" * 64)})
    log.observe(process.request("a request that was under way"))  # of version 1
    assert (log.counts.accepted, log.counts.lost.total()) == (1, 0)
    assert not log.follow(process.config(tmp_path, table=str(tmp_path / "other")), {})
    assert log_for(log, None, {}, "replica-1") is None

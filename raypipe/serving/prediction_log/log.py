"""The prediction log of a replica: what a request costs is a copy into memory; a thread does the rest.

`observe` is called before a request is answered. What it has copied outlives the process, so that every prediction that
anyone was told of reaches the table, at most two flush intervals later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from raypipe.serving.model import LoadedModel
from raypipe.serving.prediction_log.config import LogConfig
from raypipe.serving.prediction_log.flush import Flusher, drain
from raypipe.serving.prediction_log.flush_process import FlushProcess
from raypipe.serving.prediction_log.personal import Personal, hash_key
from raypipe.serving.prediction_log.records import LoggedVersion, as_sent, encode
from raypipe.serving.prediction_log.spool import Segment, SpoolFullError
from raypipe.serving.record import Rows, Served
from raypipe.serving.traffic import place

logger = logging.getLogger("ray.serve")

_POLL_S = 0.1
_FLUSH_AFTER_S = 0.25  # after the intervals' bounds, at which all replicas of a machine finish their segments
_RECORDS_A_SEGMENT = 4  # at least: a larger one is a segment of its own
_REPORT_LOSS_S = 60.0
_HALF = 0.5
T = TypeVar("T")


@dataclass
class Counts:
    """Since the process started. accepted, bytes: rows that were copied, and their records' bytes.

    lost: rows by reason. full: the spool was, since the table cannot be written as quickly; spool: the machine had no
    room for it; record: they could not be written down; closed: the log was. written, flushes, flush_s (seconds),
    failures (flushes that raised), damaged (segments): by this process, of its whole machine.
    """

    accepted: int = 0
    bytes: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    written: int = 0
    flushes: int = 0
    flush_s: float = 0.0
    failures: int = 0
    damaged: int = 0


class PredictionLog:
    """One a replica. `observe` may be called from any thread; `versions` is replaced when others are loaded."""

    def __init__(
        self,
        config: LogConfig,
        replica: str,
        versions: Mapping[str, LoggedVersion],
        flusher: Flusher | FlushProcess | None = None,
    ) -> None:
        """flusher: None for a process of its own. Raises ConfigurationError for a key of hashes that is none."""
        self.config, self.counts, self.versions = config, Counts(), versions
        self.spool = config.the_spool()
        self._personal, self._header = Personal(frozenset(config.personal), hash_key()), replica.encode()
        self._flusher = flusher or FlushProcess(config)
        self._lock, self._creating, self._stopping = threading.Lock(), threading.Lock(), threading.Event()
        self._refused = ""  # why there is no segment
        self._sealed = self._flushed = _tick(time.time(), config.flush_interval_s)
        self._failing, self._reported, self._reported_at = False, 0, 0.0
        self._segment = self._created()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def follow(self, config: LogConfig, versions: Mapping[str, LoggedVersion]) -> bool:
        """Go on with other settings and versions; False: that takes another log, since it is for another place."""
        if (config.the_spool(), config.table, config.retention_s) != (
            self.spool,
            self.config.table,
            self.config.retention_s,
        ):
            return False
        self._personal = Personal(frozenset(config.personal), hash_key())
        self.versions, self.config = {**self.versions, **versions}, config
        return True

    def gauges(self) -> dict[str, float]:
        """For the metrics: counts since the start, and the bytes that wait on this machine."""
        counts = self.counts
        return {
            "log_accepted": counts.accepted,
            "log_written": counts.written,
            "log_lost": counts.lost.total(),
            "log_flush_failures": counts.failures,
            "log_flush_seconds": counts.flush_s,
            "log_waiting_bytes": self.spool.bytes(),
        }

    # ---- on the request's path -----------------------------------------------------------------

    def observe(self, served: Served) -> None:
        """Keep a prediction. Never raises, and waits for nothing but a lock that is held for microseconds."""
        if self.config.sample < 1 and place(f"log\x1f{served.key}") >= self.config.sample:
            return
        latency_us = time.time_ns() // 1000 - served.time_us
        rows = len(served.predictions.matrix)
        try:
            record = self._record(served, latency_us)
        except (TypeError, ValueError, KeyError):
            logger.exception("a prediction cannot be written down")
            with self._lock:
                self.counts.lost["record"] += rows
            return
        large = len(record) * _RECORDS_A_SEGMENT > self.spool.segment_bytes
        lost = self._put(record) if large else None
        with self._lock:
            lost = lost if large else self._append(record)
            if lost:
                self.counts.lost[lost] += rows
            else:
                self.counts.accepted += rows
                self.counts.bytes += len(record)

    def _record(self, served: Served, latency_us: int) -> bytes:
        version, personal, count = self.versions[served.version], self._personal, len(served.predictions.matrix)
        fields: Rows | Sequence[bytes] = personal.without(served.rows) if personal.names else served.rows
        if count > 1 and served.body is not None and not personal.names:
            fields = as_sent(served.body, count) or fields
        key_hash = personal.hashed(served.key) if personal.key else None
        return encode(served, version, fields, latency_us=latency_us, key_hash=key_hash)

    def _put(self, record: bytes) -> str | None:
        """Keep a record as a segment of its own; why it was not kept, or None."""
        if self._stopping.is_set():
            return "closed"
        return self._made(partial(self.spool.put, self._header, record))[1]

    def _append(self, record: bytes) -> str | None:
        """Why it was not kept; None: it was."""
        if self._segment is not None:
            if self._segment.append(record):
                return None
            self._segment.finish()
            self._segment = self._created()
        if self._segment is None:
            return self._refused
        return None if self._segment.append(record) else "record"

    def _created(self) -> Segment | None:
        segment, refused = self._made(partial(self.spool.create, self._header))
        self._refused = refused or self._refused
        return segment

    def _made(self, make: Callable[[], T]) -> tuple[T | None, str | None]:
        """What the spool makes, or why it does not."""
        try:
            with self._creating:  # a request and the thread at once would both find the last room
                return make(), None
        except SpoolFullError:
            return None, "full"
        except OSError as error:
            if self._refused != "spool":
                logger.warning("the prediction log has no room in %s: %s", self.spool.folder, error)
            self._refused = "spool"
            return None, "spool"

    # ---- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S):
            try:
                self._tend(time.time())
            except Exception:
                self.counts.failures += 1
                logger.exception("the prediction log's thread goes on")

    def _tend(self, now: float) -> None:
        self._turn_over(now)
        self._flush_if_due(now)
        self._report_loss(now)

    def _turn_over(self, now: float) -> None:
        """A new segment at the bounds of intervals, and before the one that is used gets full."""
        segment, tick = self._segment, _tick(now, self.config.flush_interval_s)
        due = tick != self._sealed and not (segment is not None and segment.empty)
        if segment is not None and segment.share < _HALF and not due:
            return
        made = self._created()
        if made is None:
            return  # what there is goes on
        with self._lock:
            segment, self._segment, self._sealed = self._segment, made, tick
        if segment is not None:
            segment.finish()

    def _flush_if_due(self, now: float) -> None:
        tick = _tick(now - _FLUSH_AFTER_S, self.config.flush_interval_s)
        pressed = not self._failing and self.spool.bytes() > self.config.spool_bytes * _HALF
        if tick == self._flushed and not pressed:
            return
        self._flushed = tick
        try:
            newest = self.spool.finished()[-1:]  # what is finished meanwhile waits: a commit costs as much as many rows
            while not self._stopping.is_set() and self._flush_once() and any(path.exists() for path in newest):
                pass
        except Exception as error:  # of the storage, of Delta, of the disk: the segments stay, and so does the thread
            self.counts.failures += 1
            if not self._failing:
                logger.warning("predictions wait: %s cannot be written", self.config.table, exc_info=error)
            self._failing = True

    def _flush_once(self) -> bool:
        """Whether it is us who flush, and there was anything."""
        if not self._flusher.lead():
            return False
        started = time.perf_counter()
        done = self._flusher.flush()
        self._failing = False
        if done is None:
            return False
        self.counts.flush_s += time.perf_counter() - started
        self.counts.flushes += 1
        self.counts.written += done.rows
        self.counts.damaged += done.damaged
        return True

    def _report_loss(self, now: float) -> None:
        total = self.counts.lost.total()
        if total > self._reported and now - self._reported_at > _REPORT_LOSS_S:
            logger.warning("the prediction log has lost rows: %s", dict(self.counts.lost))
            self._reported, self._reported_at = total, now

    # ---- at the end ----------------------------------------------------------------------------

    def close(self, seconds: float = 10.0) -> bool:
        """Flush what this machine has, or see another replica do it; whether nothing is left after `seconds`. What is
        left, the next replica of the model on this machine flushes."""
        self._stopping.set()
        self._thread.join(seconds)
        with self._lock:
            segment, self._segment, self._refused = self._segment, None, "closed"
        if segment is not None:
            segment.finish()
        if self._thread.is_alive():
            return False
        try:
            return drain(self.spool, self._flush_once, seconds)
        except Exception:
            logger.exception("predictions wait in %s: %s cannot be written", self.spool.folder, self.config.table)
            return False
        finally:
            self._flusher.resign()


def logged_versions(models: Mapping[str, LoadedModel], personal: Collection[str]) -> dict[str, LoggedVersion]:
    """What the log says of each loaded version."""
    return {
        name: LoggedVersion(
            model.bundle.digest,
            tuple(at for at, feature in enumerate(model.bundle.transforms.names) if feature in personal),
        )
        for name, model in models.items()
    }


def log_for(
    current: PredictionLog | None, document: Mapping[str, Any] | None, models: Mapping[str, LoadedModel], replica: str
) -> PredictionLog | None:
    """The log that `user_config["log"]` asks for: the one that there is where it is of the same table, told of what is
    new. The caller closes one that was replaced. None: nothing is logged."""
    if document is None:
        return None
    config = LogConfig.from_json(document)
    versions = logged_versions(models, config.personal)
    if current is None or not current.follow(config, versions):
        return PredictionLog(config, replica, versions)
    return current


def _tick(now: float, interval_s: float) -> int:
    return int(now // interval_s)

"""Flushing in a process of its own, one a machine: in a thread it would hold up the replica's requests.

`python -m raypipe.serving.prediction_log.flush_process CONFIG LOCK` flushes a batch for each line of its input, answers
with a line of JSON, and ends with its input, whatever ended the replica. It inherits the spool's lock (a file
descriptor), so nobody else flushes before both are gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from queue import SimpleQueue
from typing import Any

import orjson

from raypipe.errors import StorageError
from raypipe.serving.prediction_log.config import LogConfig
from raypipe.serving.prediction_log.flush import Flushed, Flusher

_END_WITHIN_S = 10.0
_ENVIRONMENT = {
    "POLARS_MAX_THREADS": "1",  # its threads would spin while requests want the processor
    # Polars keeps memory for the next batch: given back after each, asking for it again was a fifth of a batch's time.
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:10000,muzzy_decay_ms:-1",
}


class FlushProcess:
    """As a Flusher, for a replica. The process is started for the first batch, and again after it was killed."""

    def __init__(self, config: LogConfig) -> None:
        self._config, self._here = config, Flusher(config.the_spool(), config.the_table())
        self._process: subprocess.Popen[bytes] | None = None

    def lead(self) -> bool:
        """See Flusher.lead."""
        return self._here.lead()

    def flush(self) -> Flushed | None:
        """See Flusher.flush. Raises StorageError where the table cannot be written, or the process ends each time."""
        told = self._told() or self._told()  # it may have been killed since the last batch
        if told is None:
            raise StorageError("the process that writes predictions ends at once", where=self._config.table)
        if "error" in told:
            raise StorageError("predictions cannot be written", where=self._config.table, got=told["error"])
        return Flushed(**told["flushed"]) if told["flushed"] else None

    def resign(self) -> None:
        """Let others flush, once a batch that has begun is done."""
        self._end()
        self._here.resign()

    def _told(self) -> Mapping[str, Any] | None:
        """What the process says of one batch; None: it is gone, and the next one is another."""
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        with suppress(BrokenPipeError):
            process.stdin.write(b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line.endswith(b"\n"):
            self._end()
            return None
        told: Mapping[str, Any] = orjson.loads(line)
        return told

    def _started(self) -> subprocess.Popen[bytes]:
        lock = self._here.lock
        assert lock is not None, "who leads flushes"
        return subprocess.Popen(  # noqa: S603 (this module)
            [sys.executable, "-m", __name__, orjson.dumps(asdict(self._config)).decode(), str(lock)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[lock],
            env=os.environ | _ENVIRONMENT,
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()  # a batch that is half done is finished by whoever flushes next
            process.communicate()


def main() -> None:
    """Flush when asked to, until nobody can ask any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends the replica, which ends this
    config, lock = LogConfig.from_json(orjson.loads(sys.argv[1])), int(sys.argv[2])
    flusher, asked = Flusher(config.the_spool(), config.the_table(), lock), SimpleQueue[bytes]()
    threading.Thread(target=_listen, args=[asked], daemon=True).start()
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what a library prints is no answer
        while asked.get():
            answers.write(orjson.dumps(_flushed(flusher)) + b"\n")
            answers.flush()


def _listen(asked: SimpleQueue[bytes]) -> None:
    """A word for each line; where nobody can ask any more, a storage that hangs is not waited for."""
    for line in sys.stdin.buffer:
        asked.put(line)
    asked.put(b"")
    time.sleep(_END_WITHIN_S)
    os._exit(1)


def _flushed(flusher: Flusher) -> dict[str, Any]:
    try:
        done = flusher.flush()
    except Exception as error:  # noqa: BLE001 (raised again in the replica)
        return {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    return {"flushed": asdict(done) if done else None}


if __name__ == "__main__":
    main()

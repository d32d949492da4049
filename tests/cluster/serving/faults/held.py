"""A file that is slow to open: whoever opens it waits as long as this process keeps its lease on it (Linux)."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from pathlib import Path
from typing import Self

LOOK_S = 0.01


class SlowFile:
    """Use as a context manager in the main thread. Everybody who opens the file waits for `seconds`, and as long as
    `hold` is set; the system lets them in after 45 s (/proc/sys/fs/lease-break-time)."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.hold = threading.Event()
        self._path, self._seconds, self._done = path, seconds, threading.Event()
        self._keeper = threading.Thread(target=self._keep)

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the kernel says that somebody waits
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.clear()
        self._done.set()
        self._keeper.join()
        signal.signal(signal.SIGIO, self._before)

    def _keep(self) -> None:
        while not self._done.is_set():
            descriptor = os.open(self._path, os.O_RDWR)
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
                self._until_somebody_waits(descriptor)
                self._done.wait(self._seconds)
                while self.hold.is_set():
                    time.sleep(LOOK_S)
            except BlockingIOError:  # somebody has it open
                time.sleep(LOOK_S)
            finally:
                os.close(descriptor)

    def _until_somebody_waits(self, descriptor: int) -> None:
        while not self._done.is_set() and fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_WRLCK:
            time.sleep(LOOK_S)

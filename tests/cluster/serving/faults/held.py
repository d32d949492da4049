"""A file on a storage that hangs: whoever opens it waits."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path
from typing import Self


class HeldFile:
    """Use as a context manager in the main thread; until it ends, others who open the file wait, by a lease on it that
    the kernel keeps for 45 s after the first of them has come (Linux, /proc/sys/fs/lease-break-time)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the kernel says that somebody waits
        self._hold()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        signal.signal(signal.SIGIO, self._before)

    @property
    def waited_for(self) -> bool:
        return fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def let_in(self) -> None:
        """Those who wait now."""
        os.close(self._descriptor)
        self._hold()

    def _hold(self) -> None:
        while True:
            self._descriptor = os.open(self._path, os.O_RDWR)
            try:
                fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except BlockingIOError:  # others have it open
                os.close(self._descriptor)
                time.sleep(0.001)
            else:
                return

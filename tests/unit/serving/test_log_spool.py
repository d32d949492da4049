"""Segments: what was written is there, whatever killed the writer; who writes and who may take it."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from raypipe.serving.prediction_log.spool import Segment, Spool, SpoolFullError, default_folder, read_segment

SIZE = 4096
RECORDS = [b"first", b"", b"a" * 300, bytes(range(256)), b"last"]


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(tmp_path / "spool", SIZE, 4 * SIZE)


def test_records_are_read_while_they_are_written(spool):
    segment = spool.create(b"replica")
    for count, record in enumerate(RECORDS):
        assert [path.name for path in spool.finished()] == []
        assert read_segment(spool.segments()[0]).records == [r for r in RECORDS[:count] if r]
        if record:
            assert segment.append(record)
    segment.finish()
    [path] = spool.finished()
    found = read_segment(path)
    assert (found.header, found.records, found.damaged) == (b"replica", [r for r in RECORDS if r], False)
    assert path.stat().st_size < SIZE


def test_a_large_record_is_a_finished_segment(spool):
    record = os.urandom(2 * SIZE)
    spool.put(b"replica", record)
    [path] = spool.finished()
    found = read_segment(path)
    assert (found.header, found.records, found.damaged) == (b"replica", [record], False)
    with pytest.raises(SpoolFullError):
        spool.put(b"replica", record)
    assert list(spool.folder.iterdir()) == [path]


def test_a_record_that_has_no_room_leaves_nothing(spool):
    """A file may have no more than this: a write goes as far as that, as it does where shared memory is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, before[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            spool.put(b"replica", bytes(2 * SIZE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(spool.folder.iterdir())


def test_a_tail_that_was_torn_at_any_byte_is_not_there(spool):
    segment = spool.create(b"replica")
    wanted = [r for r in RECORDS if r]
    ends = [segment._at]
    for record in wanted:
        segment.append(record)
        ends.append(segment._at)
    path = spool.segments()[0]
    whole = path.read_bytes()[: segment._at]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut] + bytes(len(whole) - cut))  # what comes after was never written
        assert read_segment(path).records == wanted[: max(sum(end <= cut for end in ends) - 1, 0)], cut
        path.write_bytes(whole[:cut])  # the file itself is short
        assert read_segment(path).records == wanted[: max(sum(end <= cut for end in ends) - 1, 0)], cut
    segment.finish()


def test_a_changed_byte_ends_what_is_read_and_is_told(spool):
    segment = spool.create(b"replica")
    for record in (b"one", b"two", b"three"):
        segment.append(record)
    path = spool.segments()[0]
    whole, at = path.read_bytes(), path.read_bytes().index(b"two")
    for place in range(at - 4, at + 3):  # the checksum and the record itself
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = read_segment(path)
        assert (found.records, found.damaged) == ([b"one"], True), place
    path.write_bytes(b"PAR1" + whole[4:])
    assert read_segment(path).damaged
    segment.finish()


def test_the_length_is_written_last():
    memory = mmap.mmap(-1, SIZE)
    segment = Segment(memory, os.open("/dev/null", os.O_RDWR), b"replica")
    seen = []

    class Watched:
        def __setitem__(self, place, value):
            seen.append((place.start, bytes(value)))
            memory[place] = value

    segment._memory, start = Watched(), segment._at
    segment.append(b"record")
    assert [place for place, _ in seen] == [start + 8, start]


def test_a_segment_never_grows_past_its_size(spool):
    segment = spool.create(b"replica")
    wanted = []
    while segment.append(record := os.urandom(100)):
        wanted.append(record)
    assert not segment.append(b"x" * SIZE)
    fits = SIZE - segment._at - 8
    assert not segment.append(b"x" * (fits + 1))
    assert segment.append(b"x" * fits)
    assert read_segment(spool.segments()[0]).records == [*wanted, b"x" * fits]
    segment.finish()


def test_the_spool_holds_so_many_bytes_and_what_is_finished_gives_back_what_it_did_not_use(spool):
    held = [spool.create(b"r") for _ in range(4)]
    with pytest.raises(SpoolFullError):
        spool.create(b"r")
    held[0].finish()
    held[1].finish()
    spool.create(b"r").finish()
    assert spool.bytes() < 3 * SIZE
    for segment in held[2:]:
        segment.finish()


def test_a_folder_that_cannot_be_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        Spool(tmp_path / "file" / "spool", SIZE, SIZE).create(b"r")


HOLDER = """
import sys, time
from pathlib import Path
from raypipe.serving.prediction_log.spool import Spool
segment = Spool(Path(sys.argv[1]), 4096, 65536).create(b"dead")
segment.append(b"told")
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_what_a_killed_process_wrote_is_there_and_free(spool):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(spool.folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    assert spool.finished() == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [read_segment(path).records for path in spool.finished()] == [[b"told"]]


def test_what_was_left_while_a_segment_was_made_goes_after_a_minute(spool):
    spool.folder.mkdir()
    (left := spool.folder / "00-left.new").write_bytes(b"")
    spool.remove_unborn(time.time())
    assert left.exists()
    spool.remove_unborn(time.time() + 61)
    assert not left.exists()


def test_nobody_else_may_look_into_it(spool):
    spool.create(b"replica").finish()
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert spool.segments()[0].stat().st_mode & 0o777 == 0o600
    assert default_folder("/a") != default_folder("/b")

"""The chain of entries: what it is by the standard library alone, and what it shows when someone touches it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from obstore.store import LocalStore, MemoryStore, from_url

from raypipe.errors import LedgerError, StorageError
from raypipe.registry.ledger import Change, Entry, Evidence, Ledger, broken

AT = datetime(2026, 10, 3, 14, 3, 0, 250_000, tzinfo=UTC)
EVIDENCE = Evidence("b" * 64, "r" * 64, "e" * 64, "c" * 64, "inconclusive", "f" * 64)
CHANGES = [
    Change("adopted", "late", "champion", None, 1, EVIDENCE, "registered before", {1: EVIDENCE, 2: EVIDENCE}),
    Change("register", "late", to=3, evidence=EVIDENCE),
    Change("override", "late", "champion", 1, 3, EVIDENCE, 'the café\'s "own" rows → too few'),
    Change("retire", "late", from_=2, evidence=EVIDENCE),
    Change("gc", "late", removed={"bundles": ["b" * 64]}),
]


def in_memory(changes=CHANGES) -> Ledger:
    ledger, last = Ledger(MemoryStore(), "memory"), None
    for number, change in enumerate(changes):
        last = ledger.append(change, after=last, at=AT + timedelta(minutes=number), who="ada@home")
    return ledger


def test_entries_come_back_as_they_were_written():
    entries = in_memory().entries()
    assert [entry.change for entry in entries] == CHANGES
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.at for entry in entries] == [AT + timedelta(minutes=n) for n in range(5)]
    assert {entry.who for entry in entries} == {"ada@home"}


def test_a_hash_is_sha256_over_canonical_json():
    before = None
    for content in in_memory().files().values():
        document = json.loads(content)
        own = document.pop("hash")
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert own == hashlib.sha256(canonical.encode()).hexdigest()
        assert document["previous"] == before
        before = own


def test_who_has_read_the_same_entry_appends_once():
    ledger = in_memory(CHANGES[:2])
    last = ledger.entries()[-1]
    assert ledger.append(CHANGES[2], after=last, at=AT, who="ada").number == 3
    assert ledger.append(CHANGES[3], after=last, at=AT, who="bob") is None
    assert [entry.who for entry in ledger.entries()] == ["ada@home", "ada@home", "ada"]


def test_an_answer_that_was_lost_on_the_way_is_no_other_writer():
    ledger = in_memory(CHANGES[:2])
    last = ledger.entries()[-1]
    first, again = (ledger.append(CHANGES[2], after=last, at=AT, who="ada") for _ in range(2))
    assert first == again


def test_time_never_goes_back():
    last = in_memory().entries()[-1]
    assert Entry.after(last, CHANGES[1], at=AT, who="a clock that is behind").at == last.at


@given(st.data())
def test_any_changed_value_is_found(data):
    files = in_memory().files()
    number = data.draw(st.sampled_from(sorted(files)))
    document = json.loads(files[number])
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(st.none() | st.text(max_size=3) | st.integers(0, 9) | st.just({}))
    changed = files | {number: json.dumps(document).encode()}
    if document == json.loads(files[number]):
        assert broken(changed) == []
    else:
        assert broken(changed)
        assert int(broken(changed)[0].where[:8]) in (number, number + 1)


@given(st.sets(st.integers(1, 5), max_size=4))
def test_gaps_are_found_and_the_end_is_not(gone):
    left = {number: content for number, content in in_memory().files().items() if number not in gone}
    missing = [n for n in gone if n < max(left)]
    assert [int(found.where[:8]) for found in broken(left)] == sorted(missing)


def rehashed(document: dict, **changes) -> bytes:
    """The document with changes, as someone would forge it who knows how."""
    document = {name: value for name, value in document.items() if name != "hash"} | changes
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(document | {"hash": hashlib.sha256(canonical.encode()).hexdigest()}).encode()


def test_a_forged_entry_is_not_followed_by_the_next():
    files = in_memory().files()
    files[2] = rehashed(json.loads(files[2]), who="eve")
    [found] = broken(files)
    assert found.where == "00000003.json"
    assert found.what == "an entry of the ledger does not follow the one before it"
    assert found.expected == f"previous {json.loads(files[2])['hash']}"


def test_a_whole_entry_of_another_form_is_none():
    files = in_memory().files()
    files[5] = rehashed(json.loads(files[5]), evidence={"bundle": 1})
    [found] = broken(files)
    assert (found.where, found.what[:28]) == ("00000005.json", "an entry of the ledger is no")


def test_a_damaged_ledger_is_not_read(tmp_path):
    ledger = Ledger(LocalStore(tmp_path), str(tmp_path))
    ledger.append(CHANGES[1], after=None, at=AT, who="ada")
    (tmp_path / "00000001.json").write_bytes(b"")
    with pytest.raises(LedgerError, match="was changed") as refused:
        ledger.entries()
    assert refused.value.where == f"{tmp_path}/00000001.json"


def test_whether_it_goes_on_is_asked_without_reading_it(tmp_path):
    ledger = Ledger(LocalStore(tmp_path), str(tmp_path))
    assert not ledger.goes_on_after(0)
    first = ledger.append(CHANGES[0], after=None, at=AT, who="ada")
    assert (ledger.goes_on_after(0), ledger.goes_on_after(1)) == (True, False)
    ledger.append(CHANGES[1], after=first, at=AT, who="ada")
    assert ledger.goes_on_after(1)
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(LedgerError, match="is gone"):
        ledger.goes_on_after(2)


def test_other_files_are_no_entries(tmp_path):
    ledger = Ledger(LocalStore(tmp_path), str(tmp_path))
    (tmp_path / "notes.txt").write_text("not an entry")
    assert ledger.entries() == []


def test_a_folder_that_cannot_be_written_is_an_error_in_words(tmp_path):
    ledger = Ledger(LocalStore(tmp_path / "ledger", mkdir=True), str(tmp_path / "ledger"))
    (tmp_path / "ledger").rmdir()
    (tmp_path / "ledger").write_text("a file")
    with pytest.raises(StorageError, match="the ledger cannot be read or written"):
        ledger.append(CHANGES[1], after=None, at=AT, who="ada")


# ---- an object store ---------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch):
    """An S3 bucket on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    given = {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "my"}  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
    yield "s3://bucket/ledger"
    server.stop()


def test_it_works_on_s3(bucket):
    ledger, last = Ledger(from_url(bucket), bucket), None
    for change in CHANGES:
        last = ledger.append(change, after=last, at=AT, who="ada")
    assert [entry.change for entry in ledger.entries()] == CHANGES
    assert ledger.append(CHANGES[1], after=ledger.entries()[2], at=AT, who="bob") is None


# ---- many writers ------------------------------------------------------------------------------

WRITER = """
import sys
from datetime import UTC, datetime
from obstore.store import LocalStore
from raypipe.registry.ledger import Change, Ledger
ledger = Ledger(LocalStore(sys.argv[1]), sys.argv[1])
for line in sys.stdin:
    entries = ledger.entries()
    print("read", len(entries), flush=True)
    sys.stdin.readline()
    made = ledger.append(Change("gc", "late"), after=entries[-1] if entries else None, at=datetime.now(UTC), who=sys.argv[2])
    print("won" if made else "lost", flush=True)
"""


@pytest.mark.slow
def test_of_writers_that_have_read_the_same_entry_one_appends(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]  # fmt: skip

    def ask() -> list[str]:
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        return [writer.stdout.readline().strip() for writer in writers]

    won = []
    for number in range(60):
        assert ask() == [f"read {number}"] * 3
        outcomes = ask()
        assert sorted(outcomes) == ["lost", "lost", "won"]
        won.append(str(outcomes.index("won")))
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    entries = Ledger(LocalStore(tmp_path), str(tmp_path)).entries()
    assert [entry.who for entry in entries] == won

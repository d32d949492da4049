from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path

import obstore
import pytest
from moto.server import ThreadedMotoServer
from obstore.store import from_url

from raypipe.data import files, snapshot
from raypipe.data.files import find_files, look, look_for
from raypipe.data.snapshot import partition_values
from raypipe.errors import DataError

NAMES = ["a.parquet", "b/c.parquet", "b/d.csv", "b/day=1/x.parquet", "_temporary/e.parquet", "b/.crc/f.parquet", "_day=2/g.parquet"]  # fmt: skip
DATA = ["_day=2/g.parquet", "a.parquet", "b/c.parquet", "b/day=1/x.parquet"]


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    return tmp_path


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """An S3 bucket on loopback, with the same names below `in/`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    given = {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "my"}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
        store = from_url("s3://bucket/in")
        for name in NAMES:
            obstore.put(store, name, name.encode())
        yield "s3://bucket"
    files._store.cache_clear()
    server.stop()


PATTERNS = [
    ("in", DATA),
    ("in/b", ["c.parquet", "day=1/x.parquet"]),
    ("in/b/c.parquet", ["c.parquet"]),
    ("in/*.parquet", ["a.parquet"]),
    ("in/*/c.parquet", ["b/c.parquet"]),
    ("in/b/*", ["c.parquet", "d.csv"]),
    ("in/b/?.parquet", ["c.parquet"]),
    ("in/b/[a-c].parquet", ["c.parquet"]),
    ("in/b/**/*.parquet", [".crc/f.parquet", "c.parquet", "day=1/x.parquet"]),
    ("nothing", []),
    ("in/*.nothing", []),
]


@pytest.mark.parametrize(("pattern", "names"), PATTERNS)
@pytest.mark.parametrize("place", ["relative", "absolute", "file://"])
def test_a_pattern_names_local_files(folder, place, pattern, names):
    before = {"relative": "", "absolute": f"{folder}/", "file://": f"file://{folder}/"}[place]
    found = find_files(folder, before + pattern)
    assert [f.name for f in found] == names
    assert all(Path(f.uri).read_text() == f.uri.removeprefix(f"{folder}/in/") for f in found)
    assert all(f.size == len(f.uri.removeprefix(f"{folder}/in/")) for f in found)


@pytest.mark.parametrize(("pattern", "names"), PATTERNS)
def test_a_pattern_names_objects(folder, bucket, pattern, names):
    found = find_files(folder, f"{bucket}/{pattern}")
    assert [f.name for f in found] == names
    assert all(f.uri == f"{f.place}/{f.name}" and f.uri.startswith(f"{bucket}/in/") for f in found)


def test_a_table_in_an_object_store_is_the_table(bucket, shop, visits_of, tables, tmp_path):
    store = from_url(f"{bucket}/visits")
    for n in range(3):
        tables["visits"].slice(n * 200, 200).write_parquet(tmp_path / "x")
        obstore.put(store, f"day=2024-01-0{n + 1}/x.parquet", (tmp_path / "x").read_bytes())
    edits = [("bought = dy.Bool(nullable=True)", "bought = dy.Bool(nullable=True)\n    day = dy.Date()")]
    folder = shop(tmp_path, settings={"sources.visits.path": f"{bucket}/visits"}, edits=edits)
    visits = visits_of(folder)
    assert (visits.rows, visits_of(folder).reused) == (600, True)
    assert sorted(visits.scan().collect()["visit"]) == list(range(600))
    assert visits.scan().collect()["day"].n_unique() == 3
    assert visits.snapshot["files"][0]["path"] == f"{bucket}/visits/day=2024-01-01/x.parquet"
    assert not list((folder / ".raypipe").rglob("download-*"))


def test_an_object_that_changes_while_it_is_read_is_named(bucket, shop, visits_of, tables, tmp_path, monkeypatch):
    tables["visits"].write_parquet(tmp_path / "x")
    store = from_url(f"{bucket}/changing")
    obstore.put(store, "x.parquet", (tmp_path / "x").read_bytes())
    folder = shop(tmp_path, settings={"sources.visits.path": f"{bucket}/changing"})
    describe = snapshot._read_facts

    def meddle(file, scratch):
        facts = describe(file, scratch)
        obstore.put(store, "x.parquet", (tmp_path / "x").read_bytes()[:-9])
        return facts

    monkeypatch.setattr(snapshot, "_read_facts", meddle)
    with pytest.raises(DataError, match="changed while it was read") as caught:
        visits_of(folder)
    assert caught.value.where == f"{bucket}/changing/x.parquet"


@pytest.mark.parametrize("uri", ["s3://bucket/gone.parquet", "s3://no-bucket/in"])
def test_what_is_not_there_is_named(bucket, folder, uri):
    with pytest.raises(DataError) as caught:
        find_files(folder, uri)
    assert caught.value.where.startswith(uri)


@pytest.mark.parametrize("local", [True, False], ids=["folder", "bucket"])
def test_to_look_for_a_file_tells_gone_from_unreachable(bucket, folder, local):
    place = str(folder / "in") if local else f"{bucket}/in"
    assert look_for(place, "a.parquet") == look(place, "a.parquet")
    assert look_for(place, "gone.parquet") is None
    if local:
        with pytest.raises(DataError, match="cannot be reached"):
            look_for(f"{place}/a.parquet", "a file below a file")


def test_a_file_that_is_gone_is_named(folder):
    with pytest.raises(DataError, match="a file is gone") as caught:
        look(str(folder), "gone.parquet")
    assert caught.value.where == f"{folder}/gone.parquet"


@pytest.mark.parametrize(
    ("uri", "values"),
    [
        ("/data/x.parquet", {}),
        ("/data/day=2024-01-01/hour=7/x.parquet", {"day": "2024-01-01", "hour": "7"}),
        ("s3://b/city=S%C3%A3o%20Paulo%2FBR/x.parquet", {"city": "São Paulo/BR"}),
        ("day=__HIVE_DEFAULT_PARTITION__/x.parquet", {"day": None}),
        ("a=b=c/x=y.parquet", {"a": "b=c"}),
    ],
)
def test_partition_values(uri, values):
    assert partition_values(uri) == values


# ---- what is remembered ------------------------------------------------------------------------


def aged(folder, seconds: float = 60.0) -> None:
    """Set the files' times back: what was just written is not remembered."""
    for path in (folder / "days").iterdir():
        when = path.stat().st_mtime - seconds
        os.utime(path, (when, when))


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read for the snapshot."""
    read, facts = [], snapshot._read_facts
    monkeypatch.setattr(snapshot, "_read_facts", lambda file, scratch: read.append(file.name) or facts(file, scratch))
    return read


def test_unchanged_files_are_read_once(spread, visits_of, hashed):
    aged(folder := spread())
    first, again = visits_of(folder), visits_of(folder)
    assert sorted(hashed) == ["0.parquet", "1.parquet", "2.parquet"]
    assert again.snapshot == first.snapshot
    for file in first.snapshot["files"]:
        assert file["sha256"] == hashlib.sha256(Path(file["path"]).read_bytes()).hexdigest()


def test_a_changed_file_is_read_again(spread, visits_of, tables, hashed):
    aged(folder := spread())
    visits_of(folder)
    del hashed[:]
    tables["visits"].slice(0, 199).write_parquet(folder / "days/0.parquet")
    assert visits_of(folder).rows == 599
    assert hashed == ["0.parquet"]


def test_a_file_just_written_is_not_trusted(spread, visits_of, hashed):
    folder = spread()
    visits_of(folder)
    visits_of(folder)
    assert len(hashed) == 6


@pytest.mark.parametrize("content", [b"", b"{", b"{}"])
def test_a_lost_memory_loses_nothing(spread, visits_of, content):
    aged(folder := spread())
    first = visits_of(folder)
    (folder / ".raypipe/sources/visits/files.json").write_bytes(content)
    assert visits_of(folder).digest == first.digest


def test_the_manifest_says_what_each_file_was(spread, visits_of, tables):
    found = visits_of(folder := spread()).snapshot
    assert found["schemas"] == [
        {
            "visit": {"type": "int64", "nullable": True},
            "at": {"type": "timestamp[us, tz=UTC]", "nullable": True},
            "known": {"type": "timestamp[us, tz=UTC]", "nullable": True},
            "user": {"type": "large_string", "nullable": True},
            "shop": {"type": "large_string", "nullable": True},
            "amount": {"type": "double", "nullable": True},
            "bought": {"type": "bool", "nullable": True},
        }
    ]
    path = folder / "days/0.parquet"
    assert found["files"][0] == {
        "path": str(path),
        "name": "0.parquet",
        "bytes": path.stat().st_size,
        "modified": str(path.stat().st_mtime_ns),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "rows": 200,
        "schema": 0,
    }
    assert (found["corrupt"], found["version"]) == ([], None)

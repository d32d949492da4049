"""Where input files lie: local folders and object stores (S3, GCS, Azure) behind one face.

A place is a folder's path, or a URI such as `s3://bucket/visits`; files are named relative to it. `file://` is a local
folder. Object stores take their credentials and endpoints from the environment (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, ...), as obstore documents them. Runs wherever sources are prepared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from raypipe.data.digest import digest_of_file
from raypipe.errors import DataError

_WILDCARD = re.compile(r"[*?\[]")
_SUFFIX = ".parquet"


@dataclass(frozen=True)
class InputFile:
    """A file as it was found. `mark` changes when the file does: the modification time in nanoseconds of a local file,
    entity tag and modification time of an object."""

    place: str
    name: str
    size: int
    mark: str

    @property
    def uri(self) -> str:
        return f"{self.place}/{self.name}"


def find_files(folder: Path, pattern: str) -> list[InputFile]:
    """The files that `pattern` names, sorted by name: a file, all Parquet files below a folder, or a glob (`*` and `?`
    within a folder's name, `**` over folders); relative to `folder`, absolute, or a URI.

    Below a folder, names that begin with `_` or `.` are left out, as Spark and Hive do: they are no data.
    """
    pattern = _without_file_scheme(pattern)
    return _find_objects(pattern.rstrip("/")) if "://" in pattern else _find_local(folder, pattern)


def look(place: str, name: str) -> InputFile:
    """The file as it is now. Raises DataError if it is gone or cannot be reached."""
    place = _without_file_scheme(place)
    with reachable(f"{place}/{name}"):
        return _look(place, name)


def look_for(place: str, name: str) -> InputFile | None:
    """The file as it is now, or None if it is gone. Raises DataError if that cannot be told."""
    place = _without_file_scheme(place)
    with reachable(f"{place}/{name}"):
        try:
            return _look(place, name)
        except FileNotFoundError:
            return None


def _look(place: str, name: str) -> InputFile:
    if "://" in place:
        return _object(place, name, obstore.head(_store(place), name))
    status = (Path(place) / name).stat()
    return InputFile(place, name, status.st_size, str(status.st_mtime_ns))


def require_unchanged(file: InputFile, sha256: str, content: Path) -> None:
    """Raise DataError if the file is not what it was when it was found; `content` is its local copy or itself."""
    now = look(file.place, file.name)
    if now == file and digest_of_file(content) == sha256:
        return
    raise DataError(
        "a file changed while it was read",
        where=file.uri,
        got=f"{now.size} bytes, modified {now.mark}",
        expected=f"{file.size} bytes, modified {file.mark}, with the content it had",
        hint="let the writer finish, or write under another name and rename; then run again",
    )


@contextmanager
def local_copy(file: InputFile, scratch: Path) -> Iterator[Path]:
    """The file's content on the local disk: itself, or a download into `scratch` that is removed afterwards."""
    if "://" not in file.place:
        yield Path(file.place) / file.name
        return
    path = scratch / f"download-{hashlib.sha256(file.uri.encode()).hexdigest()[:16]}{_SUFFIX}"
    try:
        with reachable(file.uri), path.open("wb") as stream:
            for piece in obstore.get(_store(file.place), file.name).stream():
                stream.write(piece)
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Turn what a file system or a store complains about into a DataError that names `uri`."""
    try:
        yield
    except FileNotFoundError:
        raise DataError("a file is gone", where=uri, hint="restore it, or run again when the writer is done") from None
    except (OSError, BaseError) as error:
        raise DataError("a file cannot be reached", where=uri, got=str(error).splitlines()[0][:300]) from None


# ---- local folders -----------------------------------------------------------------------------


def _without_file_scheme(pattern: str) -> str:
    return unquote(pattern.removeprefix("file://")) if pattern.startswith("file://") else pattern


def _find_local(folder: Path, pattern: str) -> list[InputFile]:
    path = folder / pattern
    if path.is_file():
        place, found = path.parent, [path]
    elif path.is_dir():
        place, found = path, [p for p in path.rglob(f"*{_SUFFIX}") if _is_data(str(p.relative_to(path)))]
    else:
        fixed, wanted = _split(pattern)
        place = folder / fixed
        found = list(place.glob(wanted)) if wanted else []
    names = sorted(p.relative_to(place).as_posix() for p in found if p.is_file())
    return [look(str(place), name) for name in names]


def _split(pattern: str) -> tuple[str, str]:
    """A glob's folders before the first wildcard, and the rest."""
    parts = pattern.split("/")
    fixed = next((at for at, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    return "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else ""), "/".join(parts[fixed:])


def _is_data(name: str) -> bool:
    """Whether no part of the name is hidden; `_day=1` is a partition's folder."""
    return not any(part[0] in "_." and "=" not in part for part in name.split("/"))


# ---- object stores -----------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _store(place: str) -> Any:
    # Ten retries over three minutes, which is obstore's default, looks like a hang.
    return from_url(place, retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=30)})


def _object(place: str, name: str, meta: Any) -> InputFile:
    return InputFile(place, name, meta["size"], f"{meta['e_tag'] or ''} {meta['last_modified'].isoformat()}")


def _find_objects(uri: str) -> list[InputFile]:
    place, wanted = _split(uri)
    with reachable(uri):
        if wanted:
            matches = re.compile(_glob_to_regex(wanted)).fullmatch
            return [file for file in _list(place) if matches(file.name)]
        if PurePosixPath(uri).suffix == _SUFFIX:
            place, _, name = uri.rpartition("/")
            return [look(place, name)]
        return [file for file in _list(place) if file.name.endswith(_SUFFIX) and _is_data(file.name)]


def _list(place: str) -> list[InputFile]:
    found = [_object(place, meta["path"], meta) for page in obstore.list(_store(place)) for meta in page]
    return sorted(found, key=lambda file: file.name)


def _glob_to_regex(pattern: str) -> str:
    words = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    return "".join(words.get(p) or (p if p.startswith("[") and p.endswith("]") else re.escape(p)) for p in parts)

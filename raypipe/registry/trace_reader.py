"""Read a version's records, and look at every place that they name. Runs in a command; reads what it must alone.

Without `verify`, a bundle is checked to the byte, a manifest by its content, a source's file by size and modification
time (by its bytes where the time differs), a partition by whether its files are there. With it, all bytes are read.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import orjson

from raypipe.data.digest import digest_of, digest_of_file
from raypipe.data.files import local_copy, look_for, reachable
from raypipe.data.publish import MANIFEST, Output, find
from raypipe.errors import DataError
from raypipe.evaluation.evaluate import CARD, REPORT, RESULT, SCORES
from raypipe.evaluation.worst_rows import FILE as WORST_ROWS
from raypipe.features.training_set import TRANSFORMS, TrainingSet
from raypipe.project import Project
from raypipe.project.code_identity import has_commit
from raypipe.registry import bundle
from raypipe.registry.ledger import Ledger
from raypipe.registry.lifecycle import Releases
from raypipe.registry.package import PartitionFiles, complete, partition_files
from raypipe.registry.registered_model import Version
from raypipe.registry.trace import Document, Evidence, Seen, State
from raypipe.training.train import CODE

Say = Callable[[str], None]
By = Literal["bytes", "content", "size and time", "existence"]
_READERS = 2  # hashing is bound by the disk


def read(project: Project, version: Version, registry: str, *, verify: bool, say: Say = lambda words: None) -> Evidence:
    """All that is known of `version`. registry: the URI it was asked of. `say` hears how far a long look is.

    Raises BundleError for a bundle of a raypipe that recorded less, LedgerError for a ledger that was changed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _Reader(project, Path(scratch), verify=verify, say=say).read(version, registry)


class _Reader:
    def __init__(self, project: Project, scratch: Path, *, verify: bool, say: Say) -> None:
        self._project, self._storage = project, project.storage
        self._scratch, self._verify, self._say = scratch, verify, say

    def read(self, version: Version, registry: str) -> Evidence:
        contents, index, files = self._bundle(version.bundle_uri, version.bundle_digest)
        lineage, metrics = (contents.get(name) for name in (bundle.LINEAGE, bundle.METRICS))
        told = None if lineage is None else complete(orjson.loads(lineage), version.bundle_uri)
        figures = None if metrics is None else orjson.loads(metrics)
        run, run_files = self._run(version.run_digest, told, {name: sha for name, (sha, _) in files.items()})
        ledger = Releases(version.model, Ledger.of(self._project).entries()).evidence.get(version.version)
        known = ledger.evaluation_sha256 if ledger else None
        evaluation, evaluation_files = self._evaluation(version.evaluation, figures, known)
        transforms = contents.get(bundle.TRANSFORMS)
        return Evidence(
            version=vars(version),
            registry=registry,
            ledger=vars(ledger) if ledger else None,
            bundle=index,
            bundle_files=files,
            lineage=told,
            metrics=figures,
            run=run,
            run_files=run_files,
            evaluation=evaluation,
            evaluation_files=evaluation_files,
            **({} if told is None else self._origins(told, transforms)),
        )

    def _origins(self, lineage: Document, transforms: bytes | None) -> dict[str, Any]:
        """What the lineage leads to: code, tuning, training set, sources and their files."""
        commit, study = lineage["code"]["commit"], lineage["training"].get("tuning")
        output = self._found(self._storage / "training_sets" / lineage["training_set"])
        return {
            "commit": self._commit(commit) if commit else None,
            "tuning": self._folder(self._storage / "tuning" / study) if study else None,
            "training_set": self._training_set(lineage, output, transforms),
            "partitions": self._partitions(lineage["partitions"], output),
            "sources": {name: self._source(name, told) for name, told in lineage["sources"].items()},
            "files": self._files(lineage["sources"]),
        }

    # ---- the bundle ----------------------------------------------------------------------------

    def _bundle(self, uri: str, digest: str) -> tuple[dict[str, bytes], Seen, dict[str, tuple[str, Seen]]]:
        """The files whose bytes are what the digest promises, what was found of the index, and of each file."""
        try:
            index = self._content(uri, bundle.INDEX)
        except DataError as error:
            return {}, _unreachable(uri, "bytes", error), {}
        if index is None:
            return {}, Seen(uri, "gone", "bytes"), {}
        try:
            hashes = dict(orjson.loads(index)["files"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return {}, Seen(uri, "changed", "bytes", f"{bundle.INDEX} is damaged"), {}
        if digest_of(hashes) != digest:
            return {}, Seen(uri, "changed", "bytes", f"{bundle.INDEX} has digest {digest_of(hashes)}"), {}
        contents, found = {}, {}
        for name, sha256 in hashes.items():
            seen, content = self._of_bundle(uri, name, sha256)
            found[name] = (sha256, seen)
            if seen.state == "present" and content is not None:
                contents[name] = content
        return contents, Seen(uri, "present", "bytes"), found

    def _of_bundle(self, uri: str, name: str, sha256: str) -> tuple[Seen, bytes | None]:
        place = f"{uri}/{name}"
        try:
            content = self._content(uri, name)
        except DataError as error:
            return _unreachable(place, "bytes", error), None
        if content is None:
            return Seen(place, "gone", "bytes"), None
        return _compared(place, sha256, hashlib.sha256(content).hexdigest()), content

    def _content(self, place: str, name: str) -> bytes | None:
        """A file's bytes, None if it is gone. Raises DataError if that cannot be told."""
        found = look_for(place, name)
        if found is None:
            return None
        with reachable(found.uri), local_copy(found, self._scratch) as path:
            return path.read_bytes()

    # ---- what was published --------------------------------------------------------------------

    def _found(self, folder: Path) -> Output | Seen:
        """What is published in the folder, or what is the matter with it."""
        manifest = str(folder / MANIFEST)
        try:
            found = find(folder)
        except DataError as error:
            return Seen(manifest, "changed", "content", error.what)
        if found is None:
            return Seen(str(folder), "gone", "existence")
        if not isinstance(found.manifest, dict) or not isinstance(found.manifest.get("attempt"), str):
            return Seen(manifest, "changed", "content", "it names no attempt")
        return found

    def _folder(self, folder: Path) -> Seen:
        found = self._found(folder)
        return found if isinstance(found, Seen) else Seen(str(folder), "present", "existence")

    def _run(self, digest: str, lineage: Document | None, hashes: Mapping[str, str]) -> tuple[Seen, dict[str, Seen]]:
        found = self._found(self._storage / "runs" / digest)
        if isinstance(found, Seen):
            return found, {}
        model = self._hashed(found.path(bundle.MODEL), hashes.get(bundle.MODEL))
        files = {bundle.MODEL: model, f"{CODE}/": _exists(found.path(CODE))}
        if lineage is None:
            return Seen(str(found.folder), "present", "existence"), files
        m, told = found.manifest, lineage["training"]
        pairs = {name: (m.get(name), value) for name, value in told.items()}
        pairs |= {name: (m.get(name), lineage[name]) for name in ("code", "training_set")}
        return _same(found.folder, pairs), files

    def _evaluation(self, digest: str, metrics: Document | None, sha256: str | None) -> tuple[Seen, dict[str, Seen]]:
        """sha256: of evaluation.json, as the ledger has it."""
        found = self._found(self._storage / "evaluations" / digest)
        if isinstance(found, Seen):
            return found, {}
        files = {RESULT: self._hashed(found.path(RESULT), sha256)}
        files |= {name: _exists(found.path(name)) for name in (SCORES, WORST_ROWS, REPORT, CARD)}
        if metrics is None or files[RESULT].state == "gone":
            return Seen(str(found.folder), "present", "existence"), files
        result = _json(found.path(RESULT))
        pairs = {name: (result.get(name), value) for name, value in metrics.items() if name != "verdict"}
        return _same(found.folder, pairs), files

    # ---- what the lineage leads to -------------------------------------------------------------

    def _commit(self, commit: str) -> Seen:
        folder = self._project.folder
        return Seen(str(folder), "present" if has_commit(folder, commit) else "gone", "existence")

    def _training_set(self, lineage: Document, output: Output | Seen, transforms: bytes | None) -> Seen:
        if isinstance(output, Seen):
            return output
        m = output.manifest
        pairs = {
            "identity": (digest_of(m.get("identity")), lineage["training_set"]),
            "sources": (m.get("sources"), lineage["sources"]),
        }
        learned = output.path(TRANSFORMS)
        if transforms is not None:
            pairs["transforms"] = (_json(learned), orjson.loads(transforms))
        return _same(output.folder, pairs)

    def _partitions(self, recorded: Sequence[Document], output: Output | Seen) -> list[Seen]:
        """Of each recorded partition, by its place in the training set's manifest."""
        if isinstance(output, Seen):
            unknown = Seen(output.place, "gone", "existence", "the training set's manifest named its files")
            return [unknown] * len(recorded)
        try:
            there = partition_files(TrainingSet(output))
        except (IndexError, KeyError, TypeError, ValueError):
            return [Seen(str(output.folder), "changed", "content", "its list of files is damaged")] * len(recorded)
        found = []
        for at, told in enumerate(recorded):
            self._say(f"partition {at + 1} of {len(recorded)}")
            if at < len(there) and there[at].part == told["part"]:
                found.append(self._partition(there[at], told["sha256"]))
            else:
                found.append(Seen(str(output.folder), "gone", "content", "the manifest names no such partition now"))
        return found

    def _partition(self, partition: PartitionFiles, sha256: str) -> Seen:
        place, lacking = str(partition.folder), [path for path in partition.files if not path.is_file()]
        if lacking:
            return Seen(
                place, "gone", "existence", f"{len(lacking)} of {len(partition.files)} files: {lacking[0].name}"
            )
        return _compared(place, sha256, partition.digest()) if self._verify else Seen(place, "present", "existence")

    def _source(self, name: str, told: Document) -> Seen:
        found = self._found(self._storage / "sources" / name / "snapshots" / told["digest"])
        if isinstance(found, Seen):
            return found
        pairs = {key: (found.manifest.get(key), told[key]) for key in ("snapshot", "rows", "violations")}
        return _same(found.folder, pairs)

    def _files(self, sources: Mapping[str, Document]) -> dict[str, list[Seen]]:
        """Of every file of every snapshot, in order."""
        recorded = {name: [*s["snapshot"]["files"], *s["snapshot"]["corrupt"]] for name, s in sources.items()}
        found: dict[str, list[Seen]] = {}
        with ThreadPoolExecutor(_READERS) as pool:
            for name, files in recorded.items():
                found[name] = []
                for at, seen in enumerate(pool.map(self._file, files), 1):
                    self._say(f"{name}: file {at} of {len(files)}")
                    found[name].append(seen)
        return found

    def _file(self, told: Document) -> Seen:
        uri, name = told["path"], told["name"]
        try:
            now = look_for(uri.removesuffix(f"/{name}"), name)
            if now is None:
                return Seen(uri, "gone", "existence")
            if now.size != told["bytes"]:
                return Seen(uri, "changed", "size and time", f"{now.size:,} bytes, recorded {told['bytes']:,}")
            if now.mark == told["modified"] and not self._verify:
                return Seen(uri, "present", "size and time")
            with reachable(uri), local_copy(now, self._scratch) as path:
                return _compared(uri, told["sha256"], digest_of_file(path))
        except DataError as error:
            return _unreachable(uri, "bytes", error)

    def _hashed(self, path: Path, sha256: str | None) -> Seen:
        if sha256 is None or not path.is_file():
            return _exists(path)
        return _compared(str(path), sha256, digest_of_file(path))


# ---- what is said of a place -------------------------------------------------------------------


def _exists(path: Path) -> Seen:
    return Seen(str(path), "present" if path.exists() else "gone", "existence")


def _compared(place: str, recorded: str, now: str) -> Seen:
    same = recorded == now
    return Seen(place, "present" if same else "changed", "bytes", "" if same else f"sha256 {now}")


def _same(folder: Path, pairs: Mapping[str, tuple[Any, Any]]) -> Seen:
    """Whether a manifest's values (first) are those recorded (second)."""
    other = [name for name, (now, recorded) in pairs.items() if now != recorded]
    state: State = "changed" if other else "present"
    return Seen(str(folder), state, "content", f"not as recorded: {', '.join(other)}" if other else "")


def _unreachable(place: str, by: By, error: DataError) -> Seen:
    return Seen(place, "unreachable", by, error.got or error.what)


def _json(path: Path) -> dict[str, Any]:
    """The document in the file; an empty one if there is none."""
    try:
        document = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return document if isinstance(document, dict) else {}

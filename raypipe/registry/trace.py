"""From a registered version back to all that it was made of: a tree of what was recorded and what is there now. Pure.

`raypipe.registry.trace_reader` reads the documents and looks at the places; `tree` puts them together. Whatever leads
to a version (a prediction, a deployment) is a node above `tree`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from raypipe.data.digest import digest_of

Document = Mapping[str, Any]
State = Literal["present", "changed", "gone", "unreachable"]
STATES: tuple[State, ...] = ("present", "changed", "gone", "unreachable")


@dataclass(frozen=True)
class Seen:
    """What was found at a place. `by`: what was compared with the record: all bytes, the content of a manifest, size
    and time, or that something is there at all. `says`: in words, where it is not as it was recorded."""

    place: str
    state: State
    by: Literal["bytes", "content", "size and time", "existence"]
    says: str = ""


@dataclass(frozen=True)
class Evidence:
    """A version's records, and what was found of each.

    version: number, aliases, `run_digest`, `evaluation`, `definitions_digest`, `verdict` and `bundle_digest` as the
    registry has them. lineage, metrics: of the bundle, None unless their bytes are what the digest promises.
    bundle_files, sources, files, evaluation_files, run_files: by name; files: of each source, in the order of its
    snapshot, the corrupt ones last. partitions: in the order of the lineage's.
    """

    version: Document
    registry: str
    bundle: Seen
    bundle_files: Mapping[str, tuple[str, Seen]]
    lineage: Document | None
    metrics: Document | None
    run: Seen
    run_files: Mapping[str, Seen]
    evaluation: Seen
    evaluation_files: Mapping[str, Seen]
    commit: Seen | None = None
    tuning: Seen | None = None
    training_set: Seen | None = None
    partitions: Sequence[Seen] = ()
    sources: Mapping[str, Seen] = field(default_factory=dict)
    files: Mapping[str, Sequence[Seen]] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """One thing that a version comes from. `seen` is None for what has no place of its own to look at."""

    kind: str
    name: str
    digest: str | None = None
    seen: Seen | None = None
    facts: Document = field(default_factory=dict)
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()

    def to_json(self) -> dict[str, Any]:
        seen = self.seen
        found = {"place": seen.place, "state": seen.state, "checked": seen.by} if seen else {}
        return {
            "kind": self.kind,
            "name": self.name,
            "digest": self.digest,
            **found,
            **({"says": seen.says} if seen and seen.says else {}),
            "facts": dict(self.facts),
            "children": [child.to_json() for child in self.children],
        }


def counts(node: Node) -> dict[State, int]:
    """How many nodes are in each state."""
    found = Counter(n.seen.state for n in node.walk() if n.seen)
    return {state: found[state] for state in STATES}


def tree(evidence: Evidence) -> Node:
    """The version with its bundle, run and evaluation below it, and below those what they come from."""
    version = evidence.version
    return Node(
        "version",
        str(version["version"]),
        seen=_registered(evidence),
        facts={"aliases": list(version["aliases"]), "verdict": version["verdict"]},
        children=(_bundle(evidence), _run(evidence), _evaluation(evidence)),
    )


def _registered(evidence: Evidence) -> Seen:
    """Whether what the registry says of the version is what its bundle says."""
    version, lineage, metrics = evidence.version, evidence.lineage, evidence.metrics
    pairs: list[tuple[str, Any, Any]] = []
    if lineage:
        pairs.append(("run", version["run_digest"], lineage["run"]))
        pairs.append(("definitions", version["definitions_digest"], lineage["definitions"]["digest"]))
    if metrics:
        pairs.append(("verdict", version["verdict"], metrics["verdict"]["outcome"]))
    broken = [f"{name}: the registry says {said}, the bundle {own}" for name, said, own in pairs if said != own]
    return Seen(evidence.registry, "changed" if broken else "present", "content", "; ".join(broken))


def _bundle(evidence: Evidence) -> Node:
    files = tuple(Node("file", name, digest, seen) for name, (digest, seen) in evidence.bundle_files.items())
    return Node("bundle", "bundle", evidence.version["bundle_digest"], evidence.bundle, children=files)


def _recorded(evidence: Evidence, kind: str, document: Any, digest: str, facts: Document | None = None) -> Node:
    """What the bundle's lineage holds itself."""
    _, seen = evidence.bundle_files["lineage.json"]
    same = digest_of(document) == digest
    state: State = "present" if same else "changed"
    says = "" if same else "the recorded document has another digest"
    return Node(kind, kind, digest, Seen(f"{seen.place}#{kind}", state, "content", says), facts or {})


# ---- the run -----------------------------------------------------------------------------------


def _run(evidence: Evidence) -> Node:
    digest, lineage = evidence.version["run_digest"], evidence.lineage
    files = [Node("file", name, seen=seen) for name, seen in evidence.run_files.items()]
    if lineage is None:
        return Node("run", "run", digest, evidence.run, children=tuple(files))
    told, libraries, configuration = lineage["training"], lineage["libraries"], lineage["configuration"]
    study = [Node("tuning", "study", told["tuning"], evidence.tuning)] if told.get("tuning") else []
    children = [
        *files,
        *study,
        _code(evidence, lineage["code"]),
        _recorded(evidence, "configuration", configuration, digest_of(configuration)),
        _recorded(evidence, "libraries", libraries, digest_of(libraries), libraries),
        _training_set(evidence, lineage),
    ]
    facts = {"metric": told["metric"], "rounds": told["best_round"] + 1, "workers": told["workers"]}
    return Node("run", "run", lineage["run"], evidence.run, facts, tuple(children))


def _code(evidence: Evidence, code: Document) -> Node:
    facts = {"dirty": code["dirty"], "changes": code["changes"]}
    return Node("code", "commit" if code["commit"] else "not in git", code["commit"], evidence.commit, facts)


# ---- the data ----------------------------------------------------------------------------------


def _training_set(evidence: Evidence, lineage: Document) -> Node:
    definitions = lineage["definitions"]
    document = definitions["document"]
    sizes = {name: len(document[name]) for name in ("sources", "views")}
    children = [
        _recorded(evidence, "definitions", document, definitions["digest"], sizes),
        *(
            Node(
                "partition",
                f"{told['part']} from {told['from'].removesuffix('+00:00')}",
                told["sha256"],
                seen,
                {"rows": told["rows"]},
            )
            for told, seen in zip(lineage["partitions"], evidence.partitions, strict=True)
        ),
        *(_source(name, told, evidence) for name, told in lineage["sources"].items()),
    ]
    rows = sum(told["rows"] for told in lineage["partitions"])
    facts = {"rows": rows, "as_of": lineage["as_of"]}
    return Node("training set", "training set", lineage["training_set"], evidence.training_set, facts, tuple(children))


def _source(name: str, told: Document, evidence: Evidence) -> Node:
    snapshot = told["snapshot"]
    recorded = [*snapshot["files"], *snapshot["corrupt"]]
    files = tuple(
        Node(
            "file",
            file["name"],
            file["sha256"],
            seen,
            {name: file[name] for name in ("bytes", "rows", "problem") if name in file},
        )
        for file, seen in zip(recorded, evidence.files[name], strict=True)
    )
    facts = {"snapshot": snapshot["digest"], "rows": told["rows"], "violations": told["violations"]}
    facts |= {"version": snapshot["version"]} if snapshot["version"] is not None else {}
    return Node("source", name, told["digest"], evidence.sources[name], facts, files)


# ---- the evaluation ----------------------------------------------------------------------------


def _evaluation(evidence: Evidence) -> Node:
    metrics = evidence.metrics
    files = [Node("file", name, seen=seen) for name, seen in evidence.evaluation_files.items()]
    digest = evidence.version["evaluation"]
    if metrics is None:
        return Node("evaluation", "evaluation", digest, evidence.evaluation, children=tuple(files))
    verdict, model = metrics["verdict"], metrics["model"]
    _, seen = evidence.bundle_files["metrics.json"]
    judged = Node(
        "verdict",
        verdict["outcome"],
        digest_of(verdict),
        Seen(f"{seen.place}#verdict", "present", "content"),
        {finding["rule"]: finding["outcome"] for finding in verdict["findings"]},
    )
    facts = {"rows": model["rows"], "period": metrics["period"]}
    return Node("evaluation", "evaluation", digest, evidence.evaluation, facts, (judged, *files))

"""The commands' results in words, for people."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.definitions.label import Task
from raypipe.evaluation.names import METRICS, headlines, title
from raypipe.project import Project

if TYPE_CHECKING:
    from raypipe.evaluation.evaluate import Evaluation
    from raypipe.pipeline.reproduce import Reproduction
    from raypipe.registry.registered_model import Version
    from raypipe.tuning.tune import Tuned

SHOWN_DETAILS = 12


def checked(document: dict[str, Any]) -> str:
    """What `raypipe check` found."""
    request = ", ".join(f"{name} ({dtype})" for name, dtype in document["request"].items())
    counts = ", ".join(f"{len(document[what])} {what}" for what in ("sources", "views", "features"))
    judged = f"gate: {len(document['gate'])} rules; {len(document['behaviours'])} behavioural tests"
    told = [f"request fields: {request}", document["split"], judged]
    return "\n".join([f"{document['model']} ({document['task']}): {counts}", *told, "ok"])


def explained(told: dict[str, Any]) -> str:
    """What `raypipe features --explain` found: sources, partitions, plan, and what each view will read."""
    partitions = told["partitions"]
    spine = f"{told['spine_rows']:,} rows to compute" if partitions["missing"] else "nothing to compute"
    lines = [f"{'source':<22}{'files':>7}{'rows':>15}{'size':>12}"]
    lines += [f"{n:<22}{s['files']:>7,}{s['rows']:>15,}{_size(s['bytes']):>12}" for n, s in told["sources"].items()]
    lines += ["", f"{'view reads':<22}{'files':>7}{'rows':>15}{'size':>12}{'features':>10}  entity, source"]
    for name, view in told["views"].items():
        by = f"{', '.join(view['entity'])}, {view['source']}"
        sizes = f"{view['files']:>7,}{view['rows']:>15,}{_size(view['bytes']):>12}"
        lines.append(f"{name:<22}{sizes}{view['features']:>10}  {by}")
    lines += [
        "",
        f"partitions   {len(partitions['wanted'])}, of which {len(partitions['missing'])} are missing: {spine}",
        f"batches      {partitions['batches']}, each built at once",
        f"plan         {told['plan']} ({told['because']})",
    ]
    if partitions["missing"]:
        lines.append(f"missing      {', '.join(partitions['missing'])}")
    return "\n".join(lines)


def views(told: dict[str, Any]) -> str:
    """A line a view: what it made and what it took."""
    lines = [f"{'view':<22}{'features':>9}{'rows':>13}{'seconds':>9}{'null':>8}{'size':>12}"]
    lines += [
        f"{name:<22}{v['features']:>9}{v['rows']:>13,}{v['seconds']:>9.2f}{v['null_share']:>8.1%}{_size(v['bytes']):>12}"
        for name, v in told.items()
    ]
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def versions(found: list[Version], task: Task, retired: Collection[int] = ()) -> str:
    """A line a version, newest first; a version of another task than today's may lack a figure."""
    if not found:
        return "no versions yet: raypipe run"
    told = headlines(task)
    titles = "".join(f"{words:>11}" for words in told.values())
    lines = [f"{'version':<8}{'status':<12}{'verdict':<13}{titles}  bundle"]
    for v in found:
        figures = "".join(f"{v.metrics[name]:>11.4f}" if name in v.metrics else f"{'':>11}" for name in told)
        status = ", ".join([*v.aliases, *(["retired"] if v.version in retired else [])])
        lines.append(f"{v.version:<8}{status:<12}{v.verdict:<13}{figures}  {v.bundle_digest[:12]}")
    return "\n".join(lines)


def reproduced(number: int, made: Reproduction) -> str:
    """A line a step, with what differs below it."""
    rows = [
        ("step", "recorded", "built again", ""),
        *((f.step, f.recorded, f.rebuilt, f.verdict) for f in made.findings),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    said = {row[0]: "  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows}
    lines = [said["step"]]
    for finding in made.findings:
        lines.append(said[finding.step])
        lines += [f"    {detail}" for detail in finding.details[:SHOWN_DETAILS]]
        if len(finding.details) > SHOWN_DETAILS:
            lines.append(f"    and {len(finding.details) - SHOWN_DETAILS} more: --json lists all")
    differs = ", ".join(f.step for f in made.findings if f.verdict == "differs")
    lines.append(f"version {number} " + ("is reproduced" if made.equal else f"is not reproduced: {differs}"))
    return "\n".join([*lines, made.folder] if made.folder else lines)


def summary(version: Version, evaluation: Evaluation) -> list[str]:
    """What was built, how good it is on which days, and where the report lies."""
    figures = evaluation.metrics
    period = evaluation.result["period"]
    when = f" from {period[0][:10]} to {period[1][:10]}" if period else ""
    task: Task = evaluation.result["task"]
    told = [*headlines(task), *(name for name in METRICS[task] if name == "calibration_error")]
    quality = ", ".join(f"{title(name)} {figures[name]:.4f}" for name in told)
    main, compared = told[0], evaluation.result["baselines"].items()
    baselines = ", ".join(f"{title(main)} {values[main]:.4f} {title(name)}" for name, values in compared)
    return [
        "",
        f"built        {version.model} version {version.version}, champion; bundle {version.bundle_uri}",
        f"quality      {quality} on {figures['rows']:,} rows{when}",
        f"baselines    {baselines}",
        f"report       {evaluation.report}",
    ]


def study(tuned: Tuned) -> str:
    """What was searched and found, what stayed as it was, and what lies on an edge of the space."""
    result = tuned.result
    edges = {edge["name"]: edge for edge in result["edges"]}
    lines = [f"            {'searched':<20}{'from':>10}{'to':>10}{'untuned':>11}{'chosen':>11}"]
    for name, told in result["space"].items():
        searched, edge = told["searched"], edges.get(name)
        by_range = isinstance(searched, dict)
        ends = (searched["low"], searched["high"]) if by_range else (searched[0], searched[-1])
        said = "" if edge is None else ", XGBoost's limit" if edge["limit"] else ": widen the space"
        note = f"  on the {edge['side']} edge{said}" if edge else ""
        columns = f"{_short(ends[0]):>10}{_short(ends[1]):>10}{_short(told['untuned']):>11}{_short(told['chosen']):>11}"
        lines.append(f"            {name:<20}{columns}{note}")
    if result["rounds_exhausted"]:
        lines.append(f"            its best round is close to training.rounds ({result['rounds']}): allow more")
    kept = {"training.params": result["fixed"], "XGBoost's defaults": result["defaults"]}
    lines += [
        f"            not searched, {whose}: {', '.join(f'{name} {_short(value)}' for name, value in values.items())}"
        for whose, values in kept.items()
        if values
    ]
    lines.append(f"            report {tuned.report}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def ingested(document: dict[str, Any]) -> str:
    """What became of a file's rows, and up to when the online state knows everything."""
    fates = {
        "applied": "applied",
        "duplicates": "here before",
        "pending": "not known yet",
        "replaced": "corrected before",
        "expired": "too old for any view",
        "quarantined": "set aside",
    }
    said = ", ".join(f"{document[name]:,} {words}" for name, words in fates.items() if document[name])
    waited = f"; {document['released']:,} that waited have become known" if document["released"] else ""
    return f"{document['rows']:,} rows of {document['source']}: {said or 'none'}{waited}\nas of {document['as_of']}"


def prediction(rows: list[dict[str, Any]], answer: dict[str, Any]) -> str:
    """Each row with its probability, class, value or score."""
    said = []
    for row, predicted in zip(rows, answer["predictions"], strict=True):
        fields = ", ".join(f"{name} {value}" for name, value in row.items())
        said.append(f"{_predicted(predicted)} for {fields} (version {answer['model_version']})")
    return "\n             ".join(said)


def _predicted(row: dict[str, Any]) -> str:
    if "class" in row:
        return f"{row['class']} ({row['probabilities'][str(row['class'])]:.4f})"
    return f"{next(row[name] for name in ('probability', 'value', 'score') if name in row):.4f}"


def how_to_serve(project: Project, folder: Path, rows: list[dict[str, Any]] | None) -> list[str]:
    """The commands that serve the champion and ask it."""
    serving, at = project.settings.serving, shlex.quote(str(folder))
    program = sys.argv[0] if Path(sys.argv[0]).name == "raypipe" else "raypipe"
    lines = [f"keep serving {program} serve --project {at}"]
    if rows:
        body = shlex.quote(json.dumps({"rows": rows[:1]}))
        url = f"{serving.url}/models/{project.settings.name}/predict"
        lines.append(f"then ask     curl -s {url} -H 'content-type: application/json' -d {body}")
    return lines

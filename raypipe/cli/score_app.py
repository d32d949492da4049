"""The command that scores a table, and its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raypipe.cli.options import HERE, JsonOption, PlanOption, ProjectOption
from raypipe.cli.output import Result, run_command

if TYPE_CHECKING:
    from raypipe.scoring.batch import OnBadRows
    from raypipe.scoring.scores import Scored

score_app = typer.Typer()


@score_app.command()
def score(  # noqa: PLR0917 (typer calls it by name)
    rows: Annotated[
        str, typer.Argument(help="Parquet with the columns of a request: a file, a folder, a glob or a URI.")
    ],
    project: ProjectOption = HERE,
    version: Annotated[
        int | None, typer.Option("--version", help="Score with this version instead of the champion.")
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="Use only what was known at this time (ISO 8601, UTC); default: all there is."),
    ] = None,
    plan: PlanOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="A new folder for the scores; they also stay in the storage.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", help="Copy this column of the table into the scores; may be repeated.")
    ] = None,
    on_bad_rows: Annotated[
        str,
        typer.Option("--on-bad-rows", help="Rows that break the request contract: refuse (exit code 4) or quarantine."),
    ] = "refuse",
    as_json: JsonOption = False,
) -> None:
    """Score a table: features as known at each row's prediction time, then the model; written as Parquet.

    Run it again after an interruption, and it does what is missing. Exit code 4: rows break the request contract.
    """
    wanted = {"rows": rows, "version": version, "keep": keep or [], "output": output}
    policy = _policy(on_bad_rows)
    run_command(lambda: _score(project, plan, as_of, on_bad_rows=policy, **wanted), as_json=as_json)


def _policy(word: str) -> OnBadRows:
    if word not in ("refuse", "quarantine"):
        raise typer.BadParameter("refuse or quarantine", param_hint="--on-bad-rows")
    return "quarantine" if word == "quarantine" else "refuse"


def _score(folder: Path, plan: str | None, as_of: str | None, **wanted: Any) -> Result:
    from raypipe.cli.arguments import pipeline_of

    with pipeline_of(folder, plan, as_of) as pipeline:
        from raypipe.pipeline.score import Wanted, score

        scored = score(pipeline, Wanted(**wanted))
        document = _document(scored, wanted["output"]) | {"seconds": pipeline.progress.seconds()}
        return document, _words(document)


def _document(scored: Scored, output: Path | None) -> dict[str, Any]:
    kept = ("model", "version", "bundle", "as_of", "rows", "scored", "quarantined", "broken")
    folder = output.absolute() if output else scored.output.path("")
    return {
        "scores": scored.digest,
        "reused": scored.reused,
        "folder": str(folder),
        "files": [str(folder / file["name"]) for file in scored.manifest["files"] if file["kind"] == "scores"],
        **{name: scored.manifest[name] for name in kept},
    }


def _words(document: dict[str, Any]) -> str:
    lines = [f"scored {document['scored']:,} rows with version {document['version']} of {document['model']}"]
    if document["quarantined"]:
        broken = "; ".join(f"{reason}: {count:,}" for reason, count in document["broken"].items())
        lines.append(f"set aside {document['quarantined']:,} rows ({broken}): quarantine-*.parquet")
    return "\n".join([*lines, f"{document['folder']}/scores-*.parquet"])

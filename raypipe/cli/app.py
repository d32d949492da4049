"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raypipe.cli.options import HERE, JsonOption, PlanOption, ProjectOption, UrlOption
from raypipe.cli.output import run_command
from raypipe.cli.release_app import release_app
from raypipe.cli.score_app import score_app
from raypipe.cli.status_app import status_app

app = typer.Typer(
    help="From Parquet tables to a monitored prediction endpoint, on one Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

AsOfOption = Annotated[
    str | None, typer.Option("--as-of", help="Build from what was known at this time (ISO 8601, UTC).")
]
TuneOption = Annotated[
    bool, typer.Option("--tune", help="First search for better parameters, as training.tuning says; use them.")
]
PortOption = Annotated[int | None, typer.Option("--port", help="Listen here instead of where project.yaml says.")]
app.add_typer(release_app)
app.add_typer(score_app)
app.add_typer(status_app)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make; it must not exist or be empty.")],
    as_json: JsonOption = False,
) -> None:
    """Make a project that runs: contracts, features, a label, settings and a small table."""
    from raypipe.cli import commands

    run_command(lambda: commands.init(folder), as_json=as_json)


@app.command()
def check(project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """Check features.py and project.yaml, without reading data or starting Ray."""
    from raypipe.cli import commands

    run_command(lambda: commands.check(project), as_json=as_json)


@app.command()
def features(  # noqa: PLR0917 (typer calls it by name)
    project: ProjectOption = HERE,
    plan: PlanOption = None,
    as_of: AsOfOption = None,
    first: Annotated[
        str | None, typer.Option("--from", help="Build all rows to predict for from this time on (ISO 8601, UTC).")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="... and before this time.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what would be read and built, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the data and build the training set; or, with --from or --to, the features of a range of time.

    Features are built by partitions of time. What is there already is kept, and a killed command continues.
    """
    from raypipe.cli import commands

    run_command(lambda: commands.features(project, plan, as_of, (first, last), explain=explain), as_json=as_json)


@app.command()
def train(
    project: ProjectOption = HERE,
    plan: PlanOption = None,
    as_of: AsOfOption = None,
    tune: TuneOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model on the training set (built first if need be)."""
    from raypipe.cli import commands

    run_command(lambda: commands.train(project, plan, as_of, tune=tune), as_json=as_json)


@app.command()
def evaluate(
    project: ProjectOption = HERE,
    plan: PlanOption = None,
    as_of: AsOfOption = None,
    tune: TuneOption = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the trained model, judge it by the gate, and register it if it passes."""
    from raypipe.cli import commands

    run_command(lambda: commands.evaluate(project, plan, as_of, tune=tune), as_json=as_json)


@app.command()
def run(  # noqa: PLR0917 (typer calls it by name)
    project: ProjectOption = HERE,
    plan: PlanOption = None,
    as_of: AsOfOption = None,
    request: Annotated[
        Path | None, typer.Option("--predict", help="Then deploy, and ask about the rows of this JSON file.")
    ] = None,
    port: PortOption = None,
    tune: TuneOption = False,
    as_json: JsonOption = False,
) -> None:
    """Everything from the Parquet files to a champion; what is done already is reused."""
    from raypipe.cli import commands

    run_command(lambda: commands.run(project, plan, as_of, request, port, tune=tune), as_json=as_json)


@app.command()
def models(project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """List the registered versions."""
    from raypipe.cli import commands

    run_command(lambda: commands.models(project), as_json=as_json)


@app.command()
def ui(
    project: ProjectOption = HERE,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Listen here, on this machine only.")] = 5000,
    as_json: JsonOption = False,
) -> None:
    """Show the runs and versions in MLflow's web pages until interrupted."""
    from raypipe.cli import serving_commands

    run_command(lambda: serving_commands.ui(project, port), as_json=as_json)


@app.command()
def trace(
    name: Annotated[str, typer.Argument(help="A version's number or alias, or a prediction's id.")],
    project: ProjectOption = HERE,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file and compare all bytes.")] = False,
    prediction: Annotated[
        bool, typer.Option("--prediction", help="It is a prediction's id, though a version is called so too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """From a version back to its run, data, code, configuration and verdict, and whether each is still there; from a
    prediction's id to what was asked and answered, its score computed again, and to the version that answered.

    Exit code 0: all is there as it was recorded, the score too; 1: something is changed or gone.
    """
    from raypipe.cli import lineage_commands

    run_command(lambda: lineage_commands.trace(project, name, verify=verify, prediction=prediction), as_json=as_json)


@app.command(name="ml-test-score")
def ml_test_score(
    version: Annotated[str, typer.Argument(help="A version's number or alias.")] = "champion",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """How ready for production a version's release has shown to be, by the 28 tests of the ML Test Score."""
    from raypipe.cli import lineage_commands

    run_command(lambda: lineage_commands.ml_test_score(project, version), as_json=as_json)


@app.command()
def reproduce(
    version: Annotated[int, typer.Argument(help="The version to build again.")],
    project: ProjectOption = HERE,
    keep: Annotated[bool, typer.Option("--keep", help="Keep what was built, and say where it lies.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build a version again from the source files, as its bundle records it, and say what differs.

    Exit code 0: all that was built is equal to what was recorded, the trees too; 1: something differs.
    """
    from raypipe.cli import commands

    run_command(lambda: commands.reproduce(project, version, keep=keep), as_json=as_json)


@app.command()
def serve(
    project: ProjectOption = HERE,
    version: Annotated[
        int | None, typer.Option("--version", help="Serve this version instead of the champion, and stay at it.")
    ] = None,
    port: PortOption = None,
    *,
    canary: Annotated[
        list[str], typer.Option("--canary", help="A version and its share of the requests, as 4=0.1; may be repeated.")
    ] = [],  # noqa: B006 (Typer copies it)
    shadow: Annotated[
        list[str], typer.Option("--shadow", help="A version that predicts and never answers; may be repeated.")
    ] = [],  # noqa: B006
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print a file for `serve deploy` and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve the champion over HTTP until interrupted; what is promoted or rolled back meanwhile is served at once.

    --canary and --shadow come before serving.traffic of project.yaml.
    """
    from raypipe.cli import serve_command

    run_command(
        lambda: serve_command.serve(project, version, port, canaries=canary, shadows=shadow, print_config=print_config),
        as_json=as_json,
    )


@app.command()
def ingest(
    file: Annotated[
        Path | None, typer.Argument(help="A Parquet file with rows of the source; none: only time has passed.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="The source whose rows they are.")] = None,
    project: ProjectOption = HERE,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="With this file, all that is known by then is in (ISO 8601, UTC); default: now."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add rows to the online state; running endpoints answer from them at once."""
    from raypipe.cli import serving_commands

    run_command(lambda: serving_commands.ingest(project, source, file, as_of), as_json=as_json)


@app.command()
def predict(
    request: Annotated[Path, typer.Argument(help='A JSON file {"rows": [{...}]}, or - for stdin.')],
    project: ProjectOption = HERE,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a running endpoint for predictions."""
    from raypipe.cli import serving_commands

    run_command(lambda: serving_commands.predict(project, request, url), as_json=as_json)


@app.command(name="ray-env")
def ray_env() -> None:
    """Print raypipe's Ray settings as shell exports, for the environment of `ray start`."""
    from raypipe.cluster.settings import environment

    for name, value in environment().items():
        typer.echo(f"export {name}='{value}'")


def main() -> None:
    """Entry point of the `raypipe` command and of the jobs."""
    app()

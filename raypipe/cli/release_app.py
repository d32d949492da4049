"""The commands that say what may serve, and what did."""

from __future__ import annotations

from typing import Annotated

import typer

from raypipe.cli.options import HERE, JsonOption, ProjectOption
from raypipe.cli.output import run_command

release_app = typer.Typer()
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why, for the ledger.")]


@release_app.command()
def promote(
    version: Annotated[int, typer.Argument(help="The version to make champion.")],
    project: ProjectOption = HERE,
    override: Annotated[
        str | None,
        typer.Option("--override", help="Why it may serve without a passing verdict; recorded with your name."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion, if it passed its gate.

    Exit code 3: it did not, and there is no --override. The ledger records who, when and why.
    """
    from raypipe.cli import release_commands

    run_command(lambda: release_commands.promote(project, version, override), as_json=as_json)


@release_app.command()
def rollback(
    project: ProjectOption = HERE,
    bad: Annotated[
        int | None,
        typer.Option("--from", help="Only if this version is champion; safe to repeat, in jobs and scripts."),
    ] = None,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the version that served before the champion again.

    That is the one which the ledger says was champion until the last change: a second rollback undoes the first.
    To go further back, promote that version.
    """
    from raypipe.cli import release_commands

    run_command(lambda: release_commands.rollback(project, bad, reason), as_json=as_json)


@release_app.command()
def retire(
    version: Annotated[int, typer.Argument(help="The version that shall never be champion again.")],
    project: ProjectOption = HERE,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that a version must never be promoted again, by no override either. The champion cannot be retired."""
    from raypipe.cli import release_commands

    run_command(lambda: release_commands.retire(project, version, reason), as_json=as_json)


@release_app.command()
def history(
    model: Annotated[str | None, typer.Argument(help="The model; default: the project's.")] = None,
    project: ProjectOption = HERE,
    at: Annotated[str | None, typer.Option("--at", help="What was champion then (ISO 8601, UTC), and why.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What was registered, refused, promoted, rolled back and retired: when, by whom and why."""
    from raypipe.cli import release_commands

    run_command(lambda: release_commands.history(project, model, at), as_json=as_json)


@release_app.command()
def audit(project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """Check the ledger, and that MLflow, bundles and evaluations are as it says. Exit code 1: something is not."""
    from raypipe.cli import release_commands

    run_command(lambda: release_commands.audit(project), as_json=as_json)


@release_app.command()
def gc(
    project: ProjectOption = HERE,
    keep: Annotated[
        int, typer.Option("--keep", min=0, help="Keep what so many of the ledger's last versions are made of.")
    ] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove outputs that no version to keep, no alias and no rollback needs, and what killed commands left.

    What was written within a day stays. Refused while another command works in the storage folder.
    """
    from raypipe.cli import release_commands

    run_command(lambda: release_commands.gc(project, keep, dry_run=dry_run), as_json=as_json)

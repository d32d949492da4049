"""`raypipe status`."""

from __future__ import annotations

from typing import Annotated

import typer

from raypipe.cli.options import HERE, JsonOption, ProjectOption, UrlOption
from raypipe.cli.output import run_command

status_app = typer.Typer()


@status_app.command()
def status(
    project: ProjectOption = HERE,
    url: UrlOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and show it again every 2 s until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what the endpoint serves and does: versions, weights, replicas, requests a second, latencies, errors.

    Rates and latencies are of one second (with --watch: of the two seconds before). An endpoint with keys for admin
    calls takes one from RAYPIPE_ADMIN_KEY.
    """
    from raypipe.cli import status_commands

    run_command(lambda: status_commands.status(project, url, watch=watch), as_json=as_json)

"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ProjectOption = Annotated[Path, typer.Option("--project", "-p", help="The project folder (features.py, project.yaml).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]
PlanOption = Annotated[
    str | None, typer.Option("--plan", help="local, distributed or auto; default: as project.yaml says.")
]
UrlOption = Annotated[str | None, typer.Option("--url", help="The endpoint's base URL; default: as project.yaml says.")]
HERE = Path()

"""What a user may say of the serving benchmarks on run.py's command line."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """`sides`: names, none for all; `seconds`: of load for each figure."""

    environments: Path | None = None
    sides: tuple[str, ...] = ()
    connections: tuple[int, ...] = (1, 8, 32)
    rounds: int = 2
    seconds: int = 8
    keep: Path | None = None


def add_options(parser: ArgumentParser) -> None:
    default = Options()
    group = parser.add_argument_group("serving")
    group.add_argument("--environments", type=Path, metavar="FOLDER", help="the peers' virtual environments")
    group.add_argument("--peers", nargs="+", default=[], metavar="SIDE", help="only these sides of serving")
    group.add_argument("--connections", type=int, nargs="+", default=default.connections, metavar="N")
    group.add_argument("--rounds", type=int, default=default.rounds, help="how often each side of serving is started")
    group.add_argument("--seconds", type=int, default=default.seconds, help="of load, for each figure of serving")
    group.add_argument("--keep", type=Path, metavar="FOLDER", help="keep model and measures there; go on from them")


def options(given: Namespace) -> Options:
    environments, keep = (folder.resolve() if folder else None for folder in (given.environments, given.keep))
    return Options(environments, tuple(given.peers), tuple(given.connections), given.rounds, given.seconds, keep)

"""What commands share that measure on ranks: those of a launcher, or of their own with -np."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator

from ..bench import chart
from . import quantities

__all__ = ["about", "add_arguments", "launched_as", "refuse", "require_files", "say", "start"]


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "-np",
        "-n",
        "--np",
        dest="ranks",
        type=quantities.positive,
        metavar="N",
        help="start so many ranks, when not under mpirun",
    )


def launched_as() -> int | None:
    """The rank that a launcher has given this process. (A batch script of Slurm has SLURM_PROCID too.)"""
    for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


def refuse(command: str, error: ValueError) -> int:
    """The exit status for a command line that cannot be; rank 0 says why."""
    if launched_as():
        return (
            0  # a launcher ends the job at the first status that is not 0: rank 0 must have spoken
        )
    print(f"{command}: error: {error}", file=sys.stderr)
    return 2


def require_files(json: str | None, plot: str | None) -> None:
    """Raises `ValueError` where results cannot be written."""
    if plot and not plot.endswith(chart.FORMATS):
        raise ValueError(f"{plot} is no {', '.join(chart.FORMATS)}")
    for file in filter(None, (json, plot)):
        folder = os.path.dirname(os.path.abspath(file))
        if not os.path.isdir(folder):
            raise ValueError(f"the folder of {file} does not exist")


def start(ranks: int) -> int:
    """The same command on ranks that `ronde run` starts."""
    from . import main

    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("-np", "-n", "--np")
    _, words = own.parse_known_args(sys.argv[1:])
    program = [sys.executable, "-m", "ronde", *words]
    return main(["run", "-np", str(ranks), "--", *program])


def about(facts: dict[str, str], ranks: int) -> Iterator[str]:
    """The lines above a table: what its figures depend on."""
    for name, value in {"ranks": str(ranks), **facts}.items():
        yield f"# {name + ':':<11}{value}"


def say(lines: Iterable[str]) -> None:
    for text in lines:
        print(text, flush=True)

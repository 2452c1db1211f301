"""What commands share that measure on ranks: those of a launcher, or of their own with -np."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator

from .._text import printable
from ..bench import chart, compressors
from . import launch, quantities

__all__ = [
    "about",
    "add_arguments",
    "compressor_names",
    "launched_as",
    "refuse",
    "require_files",
    "require_no_launcher",
    "say",
    "start",
]


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


def require_no_launcher(option: str, command: str) -> None:
    """Raises `ValueError` under a launcher, for an option that starts ranks."""
    if launched_as() is not None:
        raise ValueError(
            f"{option} starts ranks of its own: call `ronde {command} -np N ...` without mpirun"
        )


def refuse(command: str, error: ValueError) -> int:
    """The exit status for a command line that cannot be; rank 0 says why."""
    if launched_as():
        return (
            0  # a launcher ends the job at the first status that is not 0: rank 0 must have spoken
        )
    print(f"{command}: error: {printable(error)}", file=sys.stderr)
    return 2


def compressor_names(text: str) -> list[str]:
    """Names of compressors with parameters, joined by commas; `ArgumentTypeError` if one is none."""
    names = list(dict.fromkeys(compressors.split(text)))
    for name in names:
        try:
            compressors.make(name)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return names


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
    return main(["run", "-np", str(ranks), "--", *launch.ronde(*words)])


def about(facts: dict[str, str], ranks: int) -> Iterator[str]:
    """The lines above a table: what its figures depend on."""
    for name, value in {"ranks": str(ranks), **facts}.items():
        yield f"# {name + ':':<11}{printable(value)}"


def say(lines: Iterable[str]) -> None:
    for text in lines:
        print(text, flush=True)

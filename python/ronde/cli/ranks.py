"""What commands share that measure on ranks: those of a launcher, or of their own with -np."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator

from .._text import printable
from ..bench import chart, compressors
from . import launch, quantities
from .console import launched_as, refuse

__all__ = [
    "about",
    "add_arguments",
    "compressor_names",
    "launched_as",
    "refuse",
    "require_files",
    "require_no_launcher",
    "say",
    "say_written",
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


def require_no_launcher(option: str, command: str) -> None:
    """Raises `ValueError` under a launcher, for an option that starts ranks."""
    if launched_as() is not None:
        raise ValueError(
            f"{option} starts ranks of its own: call `ronde {command} -np N ...` without mpirun"
        )


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
        raise ValueError(f"{plot} is not a {', '.join(chart.FORMATS)}")
    for file in filter(None, (json, plot)):
        folder = os.path.dirname(os.path.abspath(file))
        if not os.path.isdir(folder):
            raise ValueError(f"the folder of {file} does not exist")
        if os.path.isdir(file) or not os.access(file if os.path.exists(file) else folder, os.W_OK):
            raise ValueError(f"{file} cannot be written")


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


def say_written(*files: str | None) -> None:
    """Below a table: where the results are kept."""
    say(f"# written to {file}" for file in files if file)


def say(lines: Iterable[str]) -> None:
    for text in lines:
        print(text, flush=True)

"""`ronde`: start a job, look at an installation, explain a schedule, measure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__, _exits
from .._text import printable_lines
from ..errors import RondeError
from . import bench, compress, doctor, explain, run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; errors go to stderr in one line."""
    parser = argparse.ArgumentParser(prog="ronde", description=__doc__)
    parser.add_argument("--version", action="version", version=f"ronde {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="")
    for command in (run, doctor, explain, bench, compress):
        command.add_parser(commands)
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:2] == ["bench", "compress"]:  # a command of its own
        words[:2] = ["bench compress"]
    args = parser.parse_args(words)
    if "run" not in args:
        parser.print_help()
        return 0
    try:
        status: int = args.run(args)
        return status
    except (RondeError, ValueError) as error:
        print(f"ronde: {printable_lines(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _exits.give_up("interrupted", 130)
        return 130

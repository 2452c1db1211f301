"""`ronde`: start a job, look at an installation, explain a schedule, measure."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

from .. import __version__, _exits
from .._text import printable_lines
from ..errors import RondeError
from .console import Parser

__all__ = ["main"]

# By the words that are typed. Only what is needed is imported: most of them need NumPy.
_COMMANDS = {
    "run": "run",
    "doctor": "doctor",
    "explain": "explain",
    "inspect": "inspect",
    "timeline": "timeline",
    "bench": "bench",
    "bench compress": "compress",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; errors go to stderr in one line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # like standard error
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:2] == ["bench", "compress"]:
        words[:2] = ["bench compress"]
    try:
        try:
            return _run(words)
        finally:
            print(end="", flush=True)
    except (RondeError, ValueError) as error:
        print(f"ronde: {printable_lines(error)}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"ronde: {error}: install it with `pip install {error.name}`", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as in `ronde explain ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        _exits.give_up("standard output was closed", 141)
        return 141
    except KeyboardInterrupt:
        _exits.give_up("interrupted", 130)
        return 130


def _run(words: Sequence[str]) -> int:
    parser = Parser(prog="ronde", description=__doc__)
    parser.add_argument("--version", action="version", version=f"ronde {__version__}")
    if words[:1] != ["--version"]:
        commands = parser.add_subparsers(title="commands", metavar="COMMAND")
        for name in _COMMANDS.keys() & words[:1] or _COMMANDS:
            importlib.import_module(f".{_COMMANDS[name]}", __name__).add_parser(commands)
    args = parser.parse_args(words)
    if "run" not in args:
        parser.print_help()
        return 0
    status: int = args.run(args)
    return status

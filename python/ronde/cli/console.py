"""How commands speak: mistakes in one line, from one rank, and text that fits the terminal."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from typing import NoReturn

from .._text import printable

__all__ = ["Parser", "columns", "launched_as", "refuse", "wrapped"]


class Parser(argparse.ArgumentParser):
    """Without the usage above each error, which takes more lines than the error."""

    def error(self, message: str) -> NoReturn:
        sys.exit(refuse(self.prog, f"{message} (see `{self.prog} --help`)"))


def launched_as() -> int | None:
    """The rank that a launcher has given this process. (A batch script of Slurm has SLURM_PROCID too.)"""
    for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


def refuse(command: str, why: object) -> int:
    """The exit status for a wrong command line; rank 0 says why."""
    if launched_as():
        return (
            0  # a launcher ends the job at the first status that is not 0: rank 0 must have spoken
        )
    print(f"{command}: error: {printable(why)}", file=sys.stderr)
    return 2


def columns() -> int:
    """The width of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def wrapped(text: str, *, indent: int = 0) -> str:
    """Lines that fit the terminal, all but the first of them indented. Paths and commands stay whole."""
    lines = textwrap.TextWrapper(
        columns() - indent, break_long_words=False, break_on_hyphens=False
    ).wrap(text)
    return f"\n{'':{indent}}".join(lines)

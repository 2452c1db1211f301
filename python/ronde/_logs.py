"""RONDE_LOG: what the logger `ronde` says, to standard error, with the rank."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

__all__ = ["show"]

_handler: logging.StreamHandler[TextIO] | None = None


class _Format(logging.Formatter):
    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def format(self, record: logging.LogRecord) -> str:
        """Every line begins alike: those of the ranks mix in the output of a launcher."""
        start = f"ronde [rank {self._rank}] {record.levelname.lower()}: "
        return "\n".join(start + line for line in super().format(record).splitlines())


def show(level: int | None, rank: int) -> None:
    """From now on; with None all stays as the program has set it."""
    global _handler
    if level is None:
        return
    log = logging.getLogger("ronde")
    if _handler is None:
        _handler = logging.StreamHandler(sys.stderr)
        log.addHandler(_handler)
        log.propagate = False  # not a second time, by what the program has set up
    _handler.setFormatter(_Format(rank))
    log.setLevel(level)

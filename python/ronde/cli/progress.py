"""How far a command is."""

from __future__ import annotations

import sys

__all__ = ["show"]


def show(text: str) -> None:
    """In a line of the terminal that each call replaces; nothing where there is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

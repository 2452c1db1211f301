"""Text from elsewhere: from a peer, a file, the environment or another program."""

from __future__ import annotations

__all__ = ["printable", "printable_lines"]


def printable(text: object) -> str:
    """The text in one line, with what could change the look of others, or a terminal, as `\\x1b`."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text)
    )


def printable_lines(text: object) -> str:
    """The same of each line of a text."""
    return "\n".join(map(printable, str(text).split("\n")))

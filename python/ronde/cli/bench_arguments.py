"""The words on the command line of `ronde bench`: each function reads those of one option.

They raise `argparse.ArgumentTypeError` for what they cannot read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from ..bench import compressors
from . import quantities, ranks

__all__ = ["PEERS", "compressions", "duration", "peers", "sizes", "whole", "words"]

PEERS = ("mpi", "gloo", "horovod", "deepspeed", "nccl")
_FACTOR = 2


def words(known: Sequence[str], everything: str = "") -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        if everything and text == everything:
            return list(known)
        found = list(dict.fromkeys(text.split(",")))
        for word in found:
            if word not in known:
                raise argparse.ArgumentTypeError(f"'{word}' is not one of {', '.join(known)}")
        return found

    return parse


def compressions(text: str) -> list[str]:
    """What is to be beaten comes first."""
    names = [name for name in compressors.split(text) if name != "none"]
    if not names:
        return ["none"]
    return list(dict.fromkeys(["none", "bf16", *ranks.compressor_names(",".join(names))]))


def sizes(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        numbers = part.split(":")
        if len(numbers) > 3:
            raise argparse.ArgumentTypeError(f"'{part}' is not like 8, 8:256M or 8:256M:4")
        bounds = [quantities.size(word) for word in numbers[:2]]
        factor = quantities.positive(numbers[2]) if len(numbers) == 3 else _FACTOR
        if min(bounds) < 1:
            raise argparse.ArgumentTypeError("a size must be at least 1 byte")
        if bounds[0] > bounds[-1]:
            raise argparse.ArgumentTypeError(
                f"'{part}' must go from the smaller to the larger size"
            )
        if factor < 2:
            raise argparse.ArgumentTypeError(f"'{part}' needs a factor of at least 2")
        size = bounds[0]
        while size <= bounds[-1]:
            found.append(size)
            size *= factor
    return list(dict.fromkeys(found))


def whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 up")
    return int(text)


def duration(text: str) -> float:
    seconds = quantities.seconds(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return seconds


def peers(text: str) -> list[tuple[str, str]]:
    """(name, interpreter or nothing)"""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, given, python = part.partition("=")
        if not given and name not in PEERS:
            raise argparse.ArgumentTypeError(
                f"'{name}' is not one of {', '.join(PEERS)}; an MPI of another environment is "
                f"{name or 'NAME'}=/path/to/its/python"
            )
        if not name or name == "ronde" or (given and not python):
            raise argparse.ArgumentTypeError(f"'{part}' is not like mpi or mpich=/path/to/python")
        if name in found:
            raise argparse.ArgumentTypeError(f"'{name}' is given twice")
        found[name] = python
    return list(found.items())

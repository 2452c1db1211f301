"""Sizes, times and speeds: from the words of a command line, and to words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

__all__ = [
    "bit_rate",
    "bytes_text",
    "per_byte",
    "positive",
    "rate_text",
    "seconds",
    "size",
    "time_text",
]


def _number(pattern: str, units: dict[str, float], example: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        found = re.fullmatch(
            r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)" + pattern, text.strip(), re.IGNORECASE
        )
        unit = found[2].lower() if found else None
        if found is None or unit not in units:
            raise argparse.ArgumentTypeError(f"'{text}' is not like {example}")
        return float(found[1]) * units[unit]

    return parse


seconds = _number(
    r"\s*([a-z]*)", {"": 1, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}, "20us or 1ms"
)
per_byte = _number("()", {"": 1}, "1e-9")
_bits = _number(r"\s*([kmg]bit)", {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}, "100Mbit or 1Gbit")
_bytes = _number("([kmg]?)", {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}, "8, 4K, 64M or 1G")


def bit_rate(text: str) -> float:
    rate = _bits(text)
    if rate == 0:
        raise argparse.ArgumentTypeError("a link has a speed")
    return 8 / rate


def size(text: str) -> int:
    size = _bytes(text)
    if size != int(size):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of bytes")
    return int(size)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no positive number")
    return int(text)


def bytes_text(size: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.4g} {unit}"
    return f"{size} B"


def time_text(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.4g} {unit}"
    return f"{round(seconds * 1e6, 3):.4g} us"


def rate_text(beta: float) -> str:
    return f" ({8e-9 / beta:.3g} Gbit/s)" if beta > 0 else ""

"""Sizes, times and speeds: from the words of a command line, and to words."""

from __future__ import annotations

import argparse
import math
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
        value = float(found[1]) * units[unit]
        if math.isinf(value):
            raise argparse.ArgumentTypeError(f"'{text}' is too large")
        return value

    return parse


# As they are printed too: `64 MiB`, `1.5 ms`, `10 Gbit/s`, `0.2 ns/byte`.
_TIMES = {"": 1, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_BITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9}
_BYTES: dict[str, float] = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

seconds = _number(r"\s*([a-z]*)", _TIMES, "20us or 1ms")
per_byte = _number(r"\s*([a-z]*)(?:/byte)?", _TIMES, "1e-9 or 1ns")
_bits = _number(r"\s*([kmg]b)(?:it|it/s|ps)", _BITS, "100Mbit or 10Gbps")
_bytes = _number(r"\s*([kmgt]?)(?:i?b)?", _BYTES, "8, 4K, 64M or 64MiB")


def bit_rate(text: str) -> float:
    rate = _bits(text)
    if rate == 0:
        raise argparse.ArgumentTypeError("the speed of a link must be above 0")
    return 8 / rate


def size(text: str) -> int:
    size = _bytes(text)
    if size != int(size):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of bytes")
    return int(size)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
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

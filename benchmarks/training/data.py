"""The text to learn: the modules of Python's own library, as bytes.

Whole files are held out, so what is tested has not been seen. An *example* is `CONTEXT` bytes and the byte
after them.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

CONTEXT = 16
HELD_OUT = 10  # one file of so many


def training_text(rank: int, ranks: int) -> Bytes:
    """A rank's own part: every `ranks`-th file."""
    kept = [file for number, file in enumerate(_files()) if number % HELD_OUT]
    return _text(kept[rank::ranks])


def held_out_examples(count: int) -> tuple[Bytes, Bytes]:
    """Examples of the files held out, the same always: contexts (count, CONTEXT) and bytes (count,)."""
    return _examples(_text(_files()[::HELD_OUT]), count, np.random.default_rng(0))


def batches(text: Bytes, size: int, seed: Sequence[int]) -> Iterator[tuple[Bytes, Bytes]]:
    """Examples without end, drawn at random: contexts (size, CONTEXT) and bytes (size,)."""
    generator = np.random.default_rng(seed)
    while True:
        yield _examples(text, size, generator)


def _examples(text: Bytes, count: int, generator: np.random.Generator) -> tuple[Bytes, Bytes]:
    ends = generator.integers(CONTEXT, len(text), count)
    return text[ends[:, None] + np.arange(-CONTEXT, 0)], text[ends]


def _files() -> list[Path]:
    return sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))


def _text(files: Sequence[Path]) -> Bytes:
    return np.frombuffer(b"".join(file.read_bytes() for file in files), np.uint8)

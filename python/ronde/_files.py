"""Files that each rank writes its own of, and that readers find whole."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["of_rank", "of_ranks", "replace"]


def of_rank(file: str, rank: int) -> Path:
    """trace.rank3.json for trace.json"""
    path = Path(file)
    return path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def of_ranks(file: str) -> dict[int, Path]:
    """Those that there are, by rank."""
    path = Path(file)
    pattern = re.compile(re.escape(path.stem) + r"\.rank(\d+)" + re.escape(path.suffix))
    found = {}
    for each in path.parent.iterdir():
        if match := pattern.fullmatch(each.name):
            found[int(match[1])] = each
    return dict(sorted(found.items()))


def replace(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Writes a file anew; nobody sees half of it. Raises `OSError`."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with new.open("wb") as file:
            file.writelines(pieces)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise

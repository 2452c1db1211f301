"""The processes of this machine, as /proc shows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["all_processes", "descendants"]


def all_processes() -> Iterator[int]:
    yield from (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))


def descendants(process: int) -> Iterator[int]:
    """Living ones. Orphans among them count if `process` is a subreaper."""
    children: dict[int, list[int]] = {}
    zombies = set()
    for each in all_processes():
        with suppress(OSError):
            # The name in it may be of any bytes.
            stat = Path(f"/proc/{each}/stat").read_text(errors="replace")
            state, parent, *_ = stat.rpartition(")")[2].split()
            children.setdefault(int(parent), []).append(each)
            if state in "ZX":
                zombies.add(each)
    found = [process]
    for each in found:
        found += children.get(each, [])
    yield from (each for each in found[1:] if each not in zombies)

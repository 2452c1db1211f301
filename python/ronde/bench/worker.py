"""What each rank does: measures the cells of a job, one after the other, through one library."""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from . import peers, timing, values
from .cells import DTYPES, Cell, Job, Row
from .peers.peer import Buffers, Operation, Peer

__all__ = ["main", "measure"]

_ROTATED_FROM = 64 << 10  # bytes: what is smaller stays in cache in real programs too
_BOUND_FROM = 64 << 10
_COPIES_AT_MOST = 1024
_LINE = 64
_UNKNOWN_CACHE = 32 << 20

_SPIN = "while True: pass"


def measure(peer: Peer, job: Job, report: Callable[[Row], None]) -> None:
    """Measures all cells; rank 0 reports each row when it is there."""
    pool_bytes, first = _neighbours(peer)
    pool_bytes *= job.rotate
    with _busy_processes(job.busy if first else 0):
        for _, alike in groupby(job.cells, lambda cell: replace(cell, compression="none")):
            cells = list(alike)
            compressed = any(_is_compressed(peer, cell) for cell in cells)
            measured = _in_turns if compressed else _one_by_one
            for row in measured(peer, job, cells, pool_bytes):
                if peer.rank == 0:
                    report(row)


def _is_compressed(peer: Peer, cell: Cell) -> bool:
    return cell.compression != "none" and not peer.why_not(cell)


def _one_by_one(peer: Peer, job: Job, cells: Sequence[Cell], pool_bytes: int) -> Iterator[Row]:
    return (_row(peer, job, cell, pool_bytes) for cell in cells)


def _row(peer: Peer, job: Job, cell: Cell, pool_bytes: int) -> Row:
    row = Row(cell, cell.bytes(peer.size), cell.count(peer.size), peer.size)
    why_not = peer.why_not(cell)
    if why_not:
        return replace(row, why_not=why_not)
    row = _measured(peer, job, cell, row, pool_bytes)
    if job.bound and cell.collective == "allreduce" and row.bytes >= _BOUND_FROM:
        memory = replace(cell, collective="memory")
        row = replace(row, bound=_measured(peer, job, memory, row, pool_bytes).time)
    return row


def _measured(peer: Peer, job: Job, cell: Cell, row: Row, pool_bytes: int) -> Row:
    copies = _copies(row.bytes, pool_bytes)
    buffers = _Pool(peer, cell, copies)
    # Some libraries are faster in place, some out of place: a peer is measured at its best.
    candidates = list(peer.operations(cell, buffers))
    wrong = None
    check = job.check and cell.collective not in ("barrier", "memory")
    if check:
        wrong = sum(_wrong(peer, cell, each, 0) for each in candidates[:1])
    buffers.make_idle()
    guesses = [timing.estimate(peer, each.calls, job.warmup) for each in candidates]
    best = min(range(len(candidates)), key=lambda index: guesses[index])
    times = timing.measure(peer, candidates[best].calls, job.seconds, job.iterations, guesses[best])
    if wrong is not None:
        wrong += _wrong(peer, cell, candidates[best], copies - 1)
    return replace(_timed(row, times), wrong=wrong)


def _timed(row: Row, times: timing.Times) -> Row:
    return replace(
        row,
        iterations=times.iterations,
        time=times.mean,
        p50=times.p50,
        p99=times.p99,
        max=times.max,
    )


def _wrong(peer: Peer, cell: Cell, operation: Operation, copy: int) -> int:
    """Elements that are wrong on all ranks after a call with crafted numbers."""
    table = values.stored(values.pattern(cell, peer.size, peer.rank), cell.dtype)
    if operation.outputs is not None:
        # Nothing right may be left over.
        peer.write(operation.outputs[copy], np.zeros(cell.outputs(peer.size), table.dtype))
    peer.write(operation.inputs[copy], values.repeated(table, cell.inputs(peer.size)))
    returned = operation.calls[copy]()
    result = operation.outputs[copy] if operation.outputs is not None else returned
    if result is not None:
        result = peer.array(result).view(DTYPES[cell.dtype])
    pieces = values.expected(cell, peer.size, peer.rank)
    mine = values.count_wrong(result, pieces) if pieces else 0
    return int(np.sum(peer.gather([mine])))


def _in_turns(peer: Peer, job: Job, cells: Sequence[Cell], pool_bytes: int) -> Iterator[Row]:
    """Cells that differ in compression alone, on the same values, which are normal: how much some
    compressors send, and how long they take, depends on them. Results are compared with the exact one.
    """
    ranks, exact = peer.size, replace(cells[0], compression="none")
    buffers = _Pool(peer, exact, _copies(exact.bytes(ranks), pool_bytes))
    random = np.random.default_rng(peer.rank)
    for array in buffers.inputs:
        peer.write(array, random.standard_normal(exact.inputs(ranks), np.float32))
    right = _result(peer, exact, buffers)
    rows, calls, guesses = [], [], []
    for cell in cells:
        row = Row(cell, cell.bytes(ranks), cell.count(ranks), ranks)
        before = peer.bytes_sent()
        result = _result(peer, cell, buffers)
        wire = float(np.mean(peer.gather([peer.bytes_sent() - before])))
        error = float(np.linalg.norm(result - right) / np.linalg.norm(right))
        rows.append(replace(row, wire=wire, error=error))
        calls.append(next(iter(peer.operations(cell, buffers))).calls)
        guesses.append(timing.estimate(peer, calls[-1], job.warmup))
    for number in range(job.rounds):
        for row, each, guess in zip(rows, calls, guesses, strict=True):
            times = timing.measure(peer, each, job.seconds, job.iterations, guess)
            yield replace(_timed(row, times), round=number)


def _result(peer: Peer, cell: Cell, buffers: Buffers) -> Any:
    """Of a first call: there has been no feedback yet."""
    return peer.array(next(iter(peer.operations(cell, buffers))).calls[0]())


class _Pool(Buffers):
    """Vectors in rows of a block. Calls take them in turn, so that together they exceed the cache."""

    def __init__(self, peer: Peer, cell: Cell, copies: int) -> None:
        self._peer, self._cell, self._copies = peer, cell, copies
        self.inputs = self._rows(cell.inputs(peer.size))
        self.make_idle()

    def make_idle(self) -> None:
        """Contents that stay what they are."""
        ranks, rank = self._peer.size, self._peer.rank
        table = values.idle(self._cell, ranks, rank)
        self._write(self.inputs, values.repeated(table, self._cell.inputs(ranks)))

    def outputs(self) -> list[Any]:
        count = self._cell.outputs(self._peer.size)
        rows = self._rows(count)
        self._write(rows, np.zeros(count, DTYPES[self._cell.dtype]))
        return rows

    def _rows(self, count: int) -> list[Any]:
        dtype = DTYPES[self._cell.dtype]
        stride = -(-max(count, 1) * dtype.itemsize // _LINE) * _LINE // dtype.itemsize
        block = self._peer.empty(self._copies * stride, self._cell)
        return [block[row * stride : row * stride + count] for row in range(self._copies)]

    def _write(self, rows: list[Any], contents: Any) -> None:
        """Pages exist from the first write on."""
        for row in rows:
            self._peer.write(row, contents)


def _copies(size: int, pool_bytes: int) -> int:
    if size < _ROTATED_FROM:
        return 1
    return max(1, min(_COPIES_AT_MOST, math.ceil(pool_bytes / size)))


def _last_level_cache() -> int:
    sizes = [_UNKNOWN_CACHE]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * unit)
    return max(sizes[1:] or sizes)


def _neighbours(peer: Peer) -> tuple[int, bool]:
    """The bytes of buffers with which the ranks of every host take twice its last-level cache, the same
    on all ranks; and whether this rank is the first of its host."""
    name = zlib.crc32(f"{os.uname().nodename} {_boot_id()}".encode())
    hosts = peer.gather([float(name)])[:, 0]
    here = np.flatnonzero(hosts == hosts[peer.rank])
    pool_bytes = np.max(peer.gather([2 * _last_level_cache() / len(here)]))
    return int(pool_bytes), bool(here[0] == peer.rank)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@contextmanager
def _busy_processes(number: int) -> Iterator[None]:
    """Neighbours that do nothing but take time from the cores."""
    libc = ctypes.CDLL(None)
    set_death_signal = 1  # of prctl(2): they end with this process, however it ends

    def prepare() -> None:
        libc.prctl(set_death_signal, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for that one

    started = [
        subprocess.Popen([sys.executable, "-S", "-c", _SPIN], preexec_fn=prepare)
        for _ in range(number)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> None:
    """One rank of a launch: reads the job from a file, and rank 0 writes rows to another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    parser.add_argument("job", type=Path)
    parser.add_argument("results", type=Path)
    args = parser.parse_args()
    job = Job.of(json.loads(args.job.read_text()))
    with peers.connect(args.peer) as peer:
        if peer.rank != 0:
            measure(peer, job, lambda row: None)
            return
        with args.results.open("w") as file:

            def write(what: dict[str, Any]) -> None:
                print(json.dumps(what), file=file, flush=True)

            write({"about": peer.about})
            measure(peer, job, lambda row: write({"row": asdict(row)}))
            write({"end": True})


if __name__ == "__main__":
    main()

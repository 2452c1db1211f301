"""How fast a core works on memory: kernels.py [copies] [crossing] [types] [ops] [stores] [select]
[low_rank].

copies    glibc's memcpy, which NumPy calls, and Ronde's copy, by where arrays begin in their pages
crossing  copies into memory that another core has read, and out of what another has written
types     every type against float32, per byte, for sums of 2, 4 and 8 inputs
ops       every operation against the sum, and averages, for each type
stores    non-temporal stores against normal ones, where Ronde may use them
select    topk with a residual against torch.topk of the absolute values, where torch is installed
low_rank  the passes of PowerSGD over a square matrix against reading two vectors and writing one

What is compared alternates within one run; ratios are printed as min/median/max over the rounds.
GB/s counts what is read and what is written, once each. Compressors by themselves are measured by
`ronde bench compress`.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from ronde import _core
from ronde.bench import machine

try:
    import torch
except ImportError:
    torch = None

DType, ReduceOp = _core.DType, _core.ReduceOp
TYPES = [DType.float32, DType.float64, DType.float16, DType.bfloat16, DType.int8, DType.int32]
TYPES += [DType.int64, DType.bool]
ROUNDS = 9
MIN_SECONDS = 2e-3  # of one measurement; shorter calls are repeated
COUNT = 25_000_000  # of the values of a gradient
KIB, MIB = 1 << 10, 1 << 20


def memory(size: int) -> Any:
    """`size` bytes that are there and begin at a page."""
    raw = np.empty(size + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    raw[start : start + size] = 0x3C  # a small normal number in every type
    return raw[start : start + size]


def seconds(call: Callable[[], object]) -> float:
    repeats = 1
    while True:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        taken = time.perf_counter() - start
        if taken >= MIN_SECONDS:
            return taken / repeats
        repeats = max(2 * repeats, int(1.2 * repeats * MIN_SECONDS / max(taken, 1e-9)))


def alternate(
    calls: dict[str, Callable[[], object]], begin: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each call in each round. Rounds begin with `begin`, which is not timed."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        begin()
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def ratios(times: list[float], reference: list[float]) -> str:
    each = sorted(a / b for a, b in zip(times, reference, strict=True))
    return f"{each[0]:.2f}/{median(each):.2f}/{each[-1]:.2f}"


def reduction(op: Any, dtype: Any, outs: list[Any], ins: list[Any], **more: Any) -> Any:
    return lambda: _core.reduce_many(op, dtype, outs, ins, **more)


def copies() -> None:
    """`ahead`: of the destination before the source, modulo a page of 4096 bytes."""
    for size in (4 * KIB, 16 * KIB, 128 * KIB, MIB, 16 * MIB):
        for ahead in (0, 16, 64, 2048):
            source, raw = memory(size), memory(size + 4096)
            to = raw[ahead : ahead + size]
            calls = {
                "glibc": partial(np.copyto, to, source),
                "ronde": partial(_core.copy_bytes, to, source),
            }
            times = alternate(calls)
            rates = "  ".join(
                f"{name} {size / median(t) / 1e9:6.1f} GB/s" for name, t in times.items()
            )
            print(
                f"copies {size // KIB:6} KiB, {ahead:4} ahead  {rates}"
                f"  glibc to ronde {ratios(times['glibc'], times['ronde'])}"
            )


def crossing() -> None:
    """A writer and a reader in turns, each on a core of its own, through one stage of shared memory."""
    for size in (128 * KIB, 256 * KIB, MIB):
        written, read = (size / each / 1e9 for each in cross(size))
        print(f"crossing {size // KIB:5} KiB  written {written:5.1f} GB/s  read {read:5.1f} GB/s")


def cross(size: int) -> tuple[float, float]:
    """The median seconds of a copy into the stage and out of it."""
    cores = os.sched_getaffinity(0)
    writer, reader = sorted(cores)[:2]
    stage = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    turn, seconds_read = np.frombuffer(mmap.mmap(-1, 4096), np.float64)[:2, None]

    def take_turns(mine: float, call: Callable[[Any], None]) -> float:
        own = memory(64 * MIB)  # of this process, and more than a second-level cache holds
        parts = [own[begin : begin + size] for begin in range(0, len(own), size)]
        times = []
        for part in itertools.islice(itertools.cycle(parts), 500):
            while turn[0] != mine:
                pass
            start = time.perf_counter()
            call(part)
            times.append(time.perf_counter() - start)
            turn[0] = 1 - mine
        return median(times)

    if os.fork() == 0:
        os.sched_setaffinity(0, {reader})
        seconds_read[0] = take_turns(1, lambda part: _core.copy_bytes(part, stage))
        os._exit(0)
    os.sched_setaffinity(0, {writer})
    seconds_written = take_turns(0, lambda part: _core.copy_bytes(stage, part))
    os.wait()
    os.sched_setaffinity(0, cores)
    return seconds_written, float(seconds_read[0])


def types() -> None:
    for size in (256 * KIB, 64 * MIB):
        for inputs in (2, 4, 8):
            ins, out = [memory(size) for _ in range(inputs)], memory(size)
            calls = {d.name: reduction(ReduceOp.sum, d, [out], ins) for d in TYPES}
            calls["memcpy"] = lambda out=out, ins=ins: _core.copy_bytes(out, ins[0])
            times = alternate(calls)
            for name, taken in times.items():
                moved = size * (2 if name == "memcpy" else inputs + 1)
                print(
                    f"types  {size // KIB:6} KiB  {inputs} inputs  {name:9}"
                    f" {moved / median(taken) / 1e9:6.1f} GB/s"
                    f"  time to float32 {ratios(taken, times['float32'])}"
                )


def ops() -> None:
    for size in (256 * KIB, 64 * MIB):
        ins, out = [memory(size) for _ in range(4)], memory(size)
        for dtype in TYPES:
            calls = {
                op.name: reduction(op, dtype, [out], ins) for op in ReduceOp.__members__.values()
            }
            if dtype.name.startswith(("float", "bfloat")):
                calls["average"] = reduction(ReduceOp.sum, dtype, [out], ins, divisor=3.0)
            times = alternate(calls)
            row = "  ".join(
                f"{name} {ratios(taken, times['sum'])}" for name, taken in times.items()
            )
            print(f"ops    {size // KIB:6} KiB  4 inputs  {dtype.name:9} time to sum: {row}")


def compare_stores(title: str, size: int, call: Callable[[bool], None]) -> None:
    times = alternate({"normal": lambda: call(False), "streaming": lambda: call(True)})
    print(
        f"stores {size // KIB:6} KiB  {title:38} normal {median(times['normal']) * 1e6:8.1f} us"
        f"  streaming to normal {ratios(times['streaming'], times['normal'])}"
    )


def walk(size: int, outs: list[Any], ins: list[Any]) -> Callable[[bool], None]:
    """Reduces `size` bytes, at another place of larger arrays in every call."""
    places = itertools.cycle(range(0, outs[0].size - size + 1, size))

    def call(streaming: bool) -> None:
        at = next(places)
        pieces = [[x[at : at + size] for x in group] for group in (outs, ins)]
        _core.reduce_many(ReduceOp.sum, DType.float32, *pieces, streaming=streaming)

    return call


def stores() -> None:
    for total in (MIB, 4 * MIB, 16 * MIB, 64 * MIB):
        to, stage = memory(total), memory(128 * KIB)

        def copy_out(streaming: bool, to: Any = to, stage: Any = stage) -> None:
            for at in range(0, to.size, stage.size):
                _core.copy_bytes(to[at : at + stage.size], stage, streaming=streaming)

        compare_stores("copy out of a warm stage of 128 KiB", total, copy_out)
    for size in (256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB):
        for inputs in (2, 8):
            ins = [memory(size) for _ in range(inputs)]
            outs = [memory(size) for _ in range(inputs)]
            compare_stores(f"{inputs} inputs, outputs the same", size, walk(size, ins, ins))
            compare_stores(f"{inputs} inputs, 1 other output", size, walk(size, outs[:1], ins))
            compare_stores(f"{inputs} inputs, as many other outputs", size, walk(size, outs, ins))
    for size in (32 * KIB, 128 * KIB):
        ins, outs = ([memory(64 * MIB) for _ in range(2)] for _ in range(2))
        compare_stores("2 inputs, outputs the same, of 64 MiB", size, walk(size, ins, ins))
        compare_stores("2 inputs, other outputs, of 64 MiB", size, walk(size, outs, ins))


def gradient() -> tuple[Any, Any]:
    """Values, and a residual."""
    random = np.random.default_rng(1)
    values, residual = (random.standard_normal(COUNT, np.float32) for _ in range(2))
    residual /= 2
    return values, residual


def select() -> None:
    if torch is None:
        print("select needs torch")
        return
    torch.set_num_threads(1)
    values, before = gradient()
    residual, absolute = before.copy(), torch.from_numpy(np.abs(values))
    for ratio in (0.001, 0.01):
        k, topk = round(ratio * COUNT), _core.Compressor.topk(ratio)
        calls = {
            "ronde": lambda topk=topk: topk.encode(values, residual),
            "torch": lambda k=k: torch.topk(absolute, k, sorted=False),
        }
        times = alternate(calls, lambda: np.copyto(residual, before))
        each = "  ".join(f"{name} {median(taken) * 1e3:7.1f} ms" for name, taken in times.items())
        print(
            f"select {COUNT} float32, {ratio:.1%}  {each}"
            f"  torch to ronde {ratios(times['torch'], times['ronde'])}"
        )


def low_rank() -> None:
    values, residual = gradient()
    out, side = np.empty_like(values), math.isqrt(COUNT)
    random = np.random.default_rng(2)
    moved = {"pass": 12, "project": 12, "back-project": 4, "reconstruct": 12}  # bytes an element
    for rank in (1, 2, 4, 8):
        product = _core.LowRank(side, side, rank)
        left, right = (random.standard_normal((rank, side), np.float32) for _ in range(2))
        calls = {
            "pass": reduction(ReduceOp.sum, DType.float32, [residual], [residual, values]),
            "project": partial(product.project, values, right, residual),
            "back-project": partial(product.back_project, residual, left),
            "reconstruct": partial(product.reconstruct, left, right, out, 1, residual, 4),
        }
        times = alternate(calls)
        a_byte = {name: [t / moved[name] for t in taken] for name, taken in times.items()}
        for name, taken in a_byte.items():
            print(
                f"low_rank {side} x {side}, rank {rank}  {name:12}"
                f" {COUNT / median(taken) / 1e9:6.1f} GB/s"
                f"  share of the pass {ratios(a_byte['pass'], taken)}"
            )


PARTS = {each.__name__: each for each in (copies, crossing, types, ops, stores, select, low_rank)}


def main() -> None:
    print(f"{machine.cpu()}, instruction set {_core.simd()}")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()

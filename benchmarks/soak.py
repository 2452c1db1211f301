"""A soak: very many mixed collectives, every result checked exactly, no growth of memory or files.

    ronde run -np 8 python benchmarks/soak.py --small 10000000 --large 1000

All ranks draw the same calls from one seed: kind, element type, size, reduction, root and process set.
Element i of rank r is (i + offset) % 7 + r, small enough that every result is exact in every element type, so
that all bytes of all results are compared. Small calls carry 0 B to 4 KB. They are repetitions, in random
order, of some thousand that are drawn anew from time to time, together with what must come of them: to build
that for each call would take longer than Ronde. Large calls carry 64 KB to 64 MB, one half of them from
arrays of `ronde.empty`. They are drawn one by one.

Asynchronous calls are small ones too. Some dozens at a time have names and are submitted and waited for in an
order of each rank, blocking calls in between; some names never come again, some calls are described
differently by a rank, which must be the only ones that fail.

At intervals the memory and the open files of each rank are sampled, and a process set is made and removed.
What is freed but kept for later is given back to the system first: it depends on which large call came last.
After the warm-up, the first three tenths of the calls, a line is fitted to the samples of each rank. The soak
fails where private or shared memory rises by more than --growth over the rest, or files by more than a half.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import ronde
from ronde import _core

TYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
TYPES += ["float16", "float32", "float64"]
PERIOD = 7
BLOCK = 2048 * PERIOD  # elements that are written or compared at once, in cache
SMALL = 4 << 10
LARGE = (64 << 10, 64 << 20)
CASES = 2000  # small calls that are drawn together
SAMPLES = 50
WARM_UP = 0.3
MIB = 1 << 20

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Run:
    """`count` elements, of which element i is (start + i) % PERIOD * factor + plus."""

    start: int
    count: int
    factor: int = 1
    plus: int = 0


Runs = list[Run]


@cache
def block(dtype: np.dtype[Any], factor: int, plus: int) -> Array:
    """A block, and a period more, so that it can begin at any element of it."""
    return (np.arange(BLOCK + PERIOD) % PERIOD * factor + plus).astype(dtype)


def pieces(dtype: np.dtype[Any], runs: Runs) -> Iterator[tuple[int, Array]]:
    """Where each piece of the runs begins, and its elements."""
    begin = 0
    for run in runs:
        elements = block(dtype, run.factor, run.plus)[run.start % PERIOD :]
        for done in range(0, run.count, BLOCK):
            yield begin + done, elements[: min(BLOCK, run.count - done)]
        begin += run.count


def write(array: Array, runs: Runs) -> Array:
    for begin, piece in pieces(array.dtype, runs):
        array[begin : begin + piece.size] = piece
    return array


def equal(array: Array, runs: Runs) -> bool:
    return all(
        array[begin : begin + piece.size].tobytes() == piece.tobytes()
        for begin, piece in pieces(array.dtype, runs)
    )


def length(runs: Runs) -> int:
    return sum(run.count for run in runs)


@dataclass(frozen=True)
class Call:
    kind: str
    dtype: np.dtype[Any]
    count: int  # elements of the whole vector, a multiple of the ranks
    offset: int
    op: ronde.Op
    root: int  # a place in the set
    shared: bool  # whether the input is an array of ronde.empty
    members: ronde.ProcessSet
    rank: int  # of this process, in the set

    # What goes in and what comes out. None: nothing.

    def own(self) -> Runs:
        return [Run(self.offset, self.count, plus=self.rank)]

    def own_part(self) -> Runs:
        return [self._part(self.rank, self.rank)]

    def of_root(self) -> Runs:
        return [Run(self.offset, self.count, plus=self.root)]

    def of_root_at_root(self) -> Runs | None:
        return self.of_root() if self.rank == self.root else None

    def part_of_root(self) -> Runs:
        return [self._part(self.root, self.rank)]

    def part_of_each(self) -> Runs:
        return [self._part(of, of) for of in range(self.members.size())]

    def part_of_each_at_root(self) -> Runs | None:
        return self.part_of_each() if self.rank == self.root else None

    def own_part_of_each(self) -> Runs:
        return [self._part(of, self.rank) for of in range(self.members.size())]

    def reduced(self) -> Runs:
        size = self.members.size()
        if self.op is ronde.Sum:
            return [Run(self.offset, self.count, size, size * (size - 1) // 2)]
        return [Run(self.offset, self.count, plus=size - 1 if self.op is ronde.Max else 0)]

    def reduced_at_root(self) -> Runs | None:
        return self.reduced() if self.rank == self.root else None

    def own_part_reduced(self) -> Runs:
        (whole,) = self.reduced()
        share = self._share()
        return [Run(whole.start + self.rank * share, share, whole.factor, whole.plus)]

    def nothing(self) -> None:
        return None

    def _share(self) -> int:
        return self.count // self.members.size()

    def _part(self, of: int, place: int) -> Run:
        """What stands in the vector of rank `of` for the rank at `place`."""
        share = self._share()
        return Run(self.offset + place * share, share, plus=of)

    def root_rank(self) -> int:
        return self.members.ranks[self.root]


# ---- the kinds -----------------------------------------------------------------------------------


def _allreduce_in_place(call: Call, x: Array) -> Array:
    ronde.allreduce_(x, call.op, process_set=call.members)
    return x


def _grouped_allreduce(call: Call, x: Array) -> Array:
    third = call.count // 3
    got = ronde.grouped_allreduce([x[:third], x[third:]], call.op, process_set=call.members)
    return np.concatenate(got)


def _broadcast_in_place(call: Call, x: Array) -> Array:
    ronde.broadcast_(x, call.root_rank(), process_set=call.members)
    return x


@dataclass(frozen=True)
class Kind:
    make: Callable[[Call, Any], Any]
    input: Callable[[Call], Runs | None]
    output: Callable[[Call], Runs | None]
    in_place: bool = False


KINDS = {
    "allreduce": Kind(
        lambda c, x: ronde.allreduce(x, c.op, process_set=c.members), Call.own, Call.reduced
    ),
    "allreduce_": Kind(_allreduce_in_place, Call.own, Call.reduced, in_place=True),
    "grouped_allreduce": Kind(_grouped_allreduce, Call.own, Call.reduced),
    "reduce": Kind(
        lambda c, x: ronde.reduce(x, c.root_rank(), c.op, process_set=c.members),
        Call.own,
        Call.reduced_at_root,
    ),
    "reducescatter": Kind(
        lambda c, x: ronde.reducescatter(x, c.op, process_set=c.members),
        Call.own,
        Call.own_part_reduced,
    ),
    "broadcast": Kind(
        lambda c, x: ronde.broadcast(x, c.root_rank(), process_set=c.members),
        Call.own,
        Call.of_root,
    ),
    "broadcast_": Kind(_broadcast_in_place, Call.own, Call.of_root, in_place=True),
    "allgather": Kind(
        lambda c, x: ronde.allgather(x, process_set=c.members), Call.own_part, Call.part_of_each
    ),
    "gather": Kind(
        lambda c, x: ronde.gather(x, c.root_rank(), process_set=c.members),
        Call.own_part,
        Call.part_of_each_at_root,
    ),
    "scatter": Kind(
        lambda c, x: ronde.scatter(x, c.root_rank(), process_set=c.members),
        Call.of_root_at_root,
        Call.part_of_root,
    ),
    "alltoall": Kind(
        lambda c, x: ronde.alltoall(x, process_set=c.members), Call.own, Call.own_part_of_each
    ),
    "barrier": Kind(lambda c, x: ronde.barrier(process_set=c.members), Call.nothing, Call.nothing),
}


SUBMIT: dict[str, Callable[[Call, Any, str], ronde.Handle[Any]]] = {
    "allreduce": lambda c, x, name: ronde.allreduce_async(x, c.op, name, process_set=c.members),
    "allreduce_": lambda c, x, name: ronde.allreduce_async_(x, c.op, name, process_set=c.members),
    "reduce": lambda c, x, name: ronde.reduce_async(
        x, c.root_rank(), c.op, name, process_set=c.members
    ),
    "reducescatter": lambda c, x, name: ronde.reducescatter_async(
        x, c.op, name, process_set=c.members
    ),
    "broadcast": lambda c, x, name: ronde.broadcast_async(
        x, c.root_rank(), name, process_set=c.members
    ),
    "broadcast_": lambda c, x, name: ronde.broadcast_async_(
        x, c.root_rank(), name, process_set=c.members
    ),
    "allgather": lambda c, x, name: ronde.allgather_async(x, name, process_set=c.members),
    "alltoall": lambda c, x, name: ronde.alltoall_async(x, name=name, process_set=c.members),
    "barrier": lambda c, x, name: ronde.barrier_async(name, process_set=c.members),
}


def drawn(rng: random.Random, large: bool, sets: list[ronde.ProcessSet]) -> Call | None:
    """A call, or None where this rank has no part in it. All ranks draw alike."""
    kind = rng.choice(list(KINDS))
    dtype = np.dtype(rng.choice(TYPES))
    lowest, highest = LARGE if large else (1, SMALL)
    size = int(lowest * (highest / lowest) ** rng.random()) if large or rng.random() > 0.05 else 0
    members = sets[0] if rng.random() < 0.6 else rng.choice(sets)
    op = rng.choice([ronde.Sum, ronde.Min, ronde.Max])
    root, offset = rng.randrange(members.size()), rng.randrange(PERIOD)
    shared = large and rng.random() < 0.5
    if not members.included():
        return None
    count = size // dtype.itemsize // members.size() * members.size()
    return Call(kind, dtype, count, offset, op, root, shared, members, members.rank())


def wrong(call: Call, got: Any) -> SystemExit:
    text = f"soak: rank {ronde.rank()}: wrong result of {call}"
    expected = KINDS[call.kind].output(call)
    if not isinstance(got, np.ndarray) or expected is None or got.shape != (length(expected),):
        return SystemExit(f"{text}: {got}")
    differ = got != write(np.empty(len(got), call.dtype), expected)
    return SystemExit(f"{text}: {np.count_nonzero(differ)} elements, {np.flatnonzero(differ)[:5]}")


class Small:
    """A call that is made many times, with what goes in and what must come out."""

    def __init__(self, call: Call) -> None:
        self.call, kind = call, KINDS[call.kind]
        self.make, self.in_place = kind.make, kind.in_place
        self.input, expected = _array(call, kind.input(call)), _array(call, kind.output(call))
        self.shape = None if expected is None else expected.shape
        self.bytes = None if expected is None else expected.tobytes()

    def fresh_input(self) -> Any:
        return self.input.copy() if self.in_place else self.input

    def check(self) -> None:
        self.compare(self.make(self.call, self.fresh_input()))

    def compare(self, got: Any) -> None:
        if got is None and self.bytes is None:
            return
        if (
            got is None
            or got.dtype != self.call.dtype
            or got.shape != self.shape
            or got.tobytes() != self.bytes
        ):
            raise wrong(self.call, got)


def _array(call: Call, runs: Runs | None) -> Any:
    return None if runs is None else write(np.empty(length(runs), call.dtype), runs)


class Together:
    """Small calls that are under way together. All ranks draw the same, each in its own order."""

    MOST = 60
    SHAPED = "allreduce", "allreduce_", "reduce", "reducescatter", "broadcast", "broadcast_"

    def __init__(self) -> None:
        self.own = random.Random(ronde.rank())
        self.batches = 0

    def check(self, rng: random.Random, drawn: Sequence[Small | None]) -> None:
        self.batches += 1
        fresh = f" of {self.batches}" if rng.random() < 0.2 else ""
        odd = rng.randrange(len(drawn)) if rng.random() < 0.1 else -1
        cases = {i: each for i, each in enumerate(drawn) if each and each.call.kind in SUBMIT}
        if odd in cases and cases[odd].call.kind not in self.SHAPED:
            del cases[odd]
        handles = {}
        for i in self.own.sample(list(cases), len(cases)):
            call, array = cases[i].call, cases[i].fresh_input()
            if i == odd and call.rank == 0:
                array = np.zeros(call.count + call.members.size(), call.dtype)
            handles[i] = SUBMIT[call.kind](call, array, f"{i}{fresh}")
        for i in self.own.sample(list(cases), len(cases)):
            if i == odd:
                self.check_failure(handles[i])
            else:
                cases[i].compare(handles[i].wait())

    @staticmethod
    def check_failure(handle: ronde.Handle[Any]) -> None:
        try:
            handle.wait()
        except ronde.MismatchError:
            return
        raise SystemExit(
            f"soak: rank {ronde.rank()}: ranks described a call differently, unnoticed"
        )


class Large:
    """Calls that are made once. Their inputs lie in the same memory, private or shared."""

    def __init__(self) -> None:
        self._shared = ronde.empty(LARGE[1], np.uint8)
        self._private = np.zeros_like(self._shared)
        self._private[:] = self._shared[:] = 0  # all of it is there from the beginning

    def check(self, call: Call) -> None:
        kind = KINDS[call.kind]
        runs, expected = kind.input(call), kind.output(call)
        array = None
        if runs is not None:
            memory = self._shared if call.shared else self._private
            array = memory[: length(runs) * call.dtype.itemsize].view(call.dtype)
            write(array, runs)
        got = kind.make(call, array)
        if got is None and expected is None:
            return
        if (
            got is None
            or expected is None
            or got.dtype != call.dtype
            or got.shape != (length(expected),)
            or not equal(got, expected)
        ):
            raise wrong(call, got)

    def check_each_kind(self, sets: list[ronde.ProcessSet]) -> None:
        """After that, all ranks have mapped all shared memory that they ever will."""
        for members in sets:
            if members.included():
                count = (4 << 20) // 4 // members.size() * members.size()
                for kind in KINDS:
                    for root in range(members.size()):
                        arguments = np.dtype("float32"), count, 0, ronde.Sum, root, True, members
                        self.check(Call(kind, *arguments, members.rank()))


# ---- memory and files ----------------------------------------------------------------------------


def sampled(step: int, seconds: float) -> Array:
    """Of all ranks: the step, the seconds, bytes of private and of shared memory, open files, and what
    Ronde had kept for large results."""
    gc.collect()
    kept = _core.release_kept()
    ctypes.CDLL(None).malloc_trim(0)
    usage = Path("/proc/self/smaps_rollup").read_text()
    (private,) = re.findall(r"^Anonymous: +(\d+) kB", usage, re.MULTILINE)
    files = len(os.listdir("/proc/self/fd"))
    mine = np.array([[step, seconds, int(private) << 10, shared_bytes(), files, kept]], np.float64)
    found: Array = ronde.allgather(mine)
    return found


def shared_bytes() -> int:
    """The length of all that is mapped and shared, of this process and of others."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, permissions, *_ = line.split()
        if permissions.endswith("s"):
            begin, end = place.split("-")
            total += int(end, 16) - int(begin, 16)
    return total


def growth(samples: list[Array], warm: int) -> Array:
    """Of each rank, what a fitted line rises by from the warm-up to the end: bytes of private and of
    shared memory, and files."""
    used = np.array([sample for sample in samples if sample[0, 0] >= warm])
    steps = used[:, 0, 0]
    if len(used) < 3:
        return np.zeros((used.shape[1], 3))
    slopes = [np.polyfit(steps, used[:, rank, 2:5], 1)[0] for rank in range(used.shape[1])]
    rises: Array = np.array(slopes) * (steps[-1] - steps[0])
    return rises


def say(text: str) -> None:
    if ronde.rank() == 0:
        print(text, flush=True)


def span(values: Iterable[float]) -> str:
    values = list(values)
    return f"{min(values):.1f} to {max(values):.1f}"


def soak(options: argparse.Namespace) -> int:
    size = ronde.size()
    some = {range(0, size, 2), range(size // 2), range(size - 1, max(size - 4, -1), -1)}
    others = [ronde.ProcessSet(ranks) for ranks in sorted(some, key=tuple) if 1 < len(ranks) < size]
    sets = [ronde.global_process_set, *others]
    for members in others:
        ronde.add_process_set(members)
    rng = random.Random(options.seed)
    large = Large()
    large.check_each_kind(sets)
    together = Together()
    total = options.small + options.large + options.asynchronous
    each = math.ceil(total / options.large) if options.large else total + 1
    share = options.asynchronous / total
    interval = max(total // SAMPLES, 1)
    start = time.monotonic()
    samples: list[Array] = []
    done = 0
    while done < total:
        calls = [drawn(rng, False, sets) for _ in range(CASES)]
        small = [None if call is None else Small(call) for call in calls]
        end = min(done + interval, total)
        while done < end:
            if rng.random() < share / (share + Together.MOST * (1 - share)):
                together.check(rng, rng.choices(small, k=Together.MOST))
                done += Together.MOST
                continue
            (case,) = rng.choices(small)
            done += 1
            if done % each == 0:
                call = drawn(rng, True, sets)
                if call is not None:
                    large.check(call)
            elif case is not None:
                case.check()
        del calls, small
        passing = ronde.ProcessSet([0, size - 1] if size > 3 else [0])
        ronde.add_process_set(passing)
        ronde.remove_process_set(passing)
        samples.append(sampled(done, time.monotonic() - start))
        _, seconds, private, shared, files, kept = samples[-1].T
        say(
            f"{done:>10} of {total}  {seconds[0]:6.0f} s  private {span(private / MIB)} MiB  "
            f"shared {span(shared / MIB)} MiB  kept {span(kept / MIB)} MiB  files {span(files)}"
        )
        if options.minutes and seconds.max() > 60 * options.minutes:
            break
    private, shared, files = growth(samples, int(WARM_UP * done)).T
    failed = max(private.max(), shared.max()) > options.growth * MIB or files.max() > 0.5
    say(
        f"{'FAILED' if failed else 'ok'}: {done} calls on {size} ranks, "
        f"{done // each} of them large, seed {options.seed}, {samples[-1][0, 1]:.0f} s; "
        f"no wrong result; after the warm-up private memory grew by at most "
        f"{private.max() / MIB:.2f} MiB, shared by {shared.max() / MIB:.2f} (limit "
        f"{options.growth:g}), files by {files.max():.2f} (limit 0.5)"
    )
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", type=int, default=100_000, metavar="N", help="0 B to 4 KB")
    parser.add_argument(
        "--asynchronous", type=int, default=0, metavar="N", help="0 B to 4 KB, some dozens at once"
    )
    parser.add_argument("--large", type=int, default=50, metavar="M", help="64 KB to 64 MB")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--minutes", type=float, default=0, metavar="LIMIT", help="end by then")
    parser.add_argument(
        "--growth", type=float, default=2, metavar="MIB", help="of memory, after the warm-up (2)"
    )
    options = parser.parse_args()
    counts = options.small, options.large, options.asynchronous
    if min(counts) < 0 or sum(counts) < 1:
        parser.error("no calls to make")
    ronde.init()
    if ronde.size() < 2:
        parser.error("a soak needs 2 ranks or more")
    return soak(options)


if __name__ == "__main__":
    sys.exit(main())

"""A soak: very many mixed collectives, every result checked exactly, no growth of memory or files.

    ronde run -np 8 python benchmarks/soak.py --small 10000000 --large 1000

All ranks draw the same calls from one seed: kind, element type, size, reduction, root and process set.
Small ones carry 0 B to 4 KB, large ones 64 KB to 64 MB. Element i of rank r is (i + offset) % 7 + r, small
enough that every result is exact in every element type, so that all elements of all results are compared.

At intervals each rank's resident memory and open files are sampled, and a process set is made and
removed. After the warm-up, the first fifth of the calls, a line is fitted to the samples of each rank; the
soak fails where it rises by more than --growth over the rest, or by more than half a file.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ronde

TYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
TYPES += ["float16", "float32", "float64"]
PERIOD = 7
TEMPLATE = 1000 * PERIOD
SMALL = 4 << 10
LARGE = (64 << 10, 64 << 20)
SAMPLES = 50
WARM_UP = 0.2
MIB = 1 << 20

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Call:
    kind: str
    dtype: np.dtype[Any]
    count: int  # elements of the whole vector, a multiple of the ranks
    offset: int
    op: ronde.Op
    root: int  # a place in the set
    members: ronde.ProcessSet
    rank: int  # of this process, in the set

    def values(self, rank: int, start: int = 0, count: int | None = None) -> Array:
        """Elements `start` to `start + count` of the vector of a rank; all by default."""
        count = self.count if count is None else count
        return pattern(self.dtype, self.offset + start, count) + self.dtype.type(rank)

    def part(self, of: int, place: int) -> Array:
        """What stands in the vector of rank `of` for the rank at `place`."""
        share = self.count // self.members.size()
        return self.values(of, place * share, share)

    def reduced(self, start: int = 0, count: int | None = None) -> Array:
        size = self.members.size()
        lowest = self.values(0, start, count)
        if self.op is ronde.Max:
            return lowest + self.dtype.type(size - 1)
        if self.op is ronde.Sum:
            return lowest * self.dtype.type(size) + self.dtype.type(size * (size - 1) // 2)
        return lowest


_templates: dict[np.dtype[Any], Array] = {}


def pattern(dtype: np.dtype[Any], start: int, count: int) -> Array:
    if dtype not in _templates:
        _templates[dtype] = (np.arange(TEMPLATE + PERIOD) % PERIOD).astype(dtype)
    first = start % PERIOD
    return np.resize(_templates[dtype][first : first + TEMPLATE], count)


# ---- the kinds -----------------------------------------------------------------------------------

# Each makes the call and returns what came and what should have come.
Pair = tuple[Any, Any]


def _allreduce(call: Call) -> Pair:
    return ronde.allreduce(
        call.values(call.rank), call.op, process_set=call.members
    ), call.reduced()


def _allreduce_in_place(call: Call) -> Pair:
    array = call.values(call.rank)
    ronde.allreduce_(array, call.op, process_set=call.members)
    return array, call.reduced()


def _grouped_allreduce(call: Call) -> Pair:
    whole = call.values(call.rank)
    arrays = [whole[: call.count // 3], whole[call.count // 3 :]]
    got = ronde.grouped_allreduce(arrays, call.op, process_set=call.members)
    return np.concatenate(got), call.reduced()


def _reduce(call: Call) -> Pair:
    root = call.members.ranks[call.root]
    got = ronde.reduce(call.values(call.rank), root, call.op, process_set=call.members)
    return (got, call.reduced()) if call.rank == call.root else (None, None)


def _reducescatter(call: Call) -> Pair:
    share = call.count // call.members.size()
    got = ronde.reducescatter(call.values(call.rank), call.op, process_set=call.members)
    return got, call.reduced(call.rank * share, share)


def _broadcast(call: Call) -> Pair:
    root = call.members.ranks[call.root]
    got = ronde.broadcast(call.values(call.rank), root, process_set=call.members)
    return got, call.values(call.root)


def _broadcast_in_place(call: Call) -> Pair:
    array = call.values(call.rank)
    ronde.broadcast_(array, call.members.ranks[call.root], process_set=call.members)
    return array, call.values(call.root)


def _from_all(call: Call, place: int | None = None) -> Array:
    """The part at `place`, of each rank; its own if None."""
    size = call.members.size()
    return np.concatenate([call.part(of, of if place is None else place) for of in range(size)])


def _allgather(call: Call) -> Pair:
    got = ronde.allgather(call.part(call.rank, call.rank), process_set=call.members)
    return got, _from_all(call)


def _gather(call: Call) -> Pair:
    root = call.members.ranks[call.root]
    got = ronde.gather(call.part(call.rank, call.rank), root, process_set=call.members)
    return (got, _from_all(call)) if call.rank == call.root else (None, None)


def _scatter(call: Call) -> Pair:
    root = call.members.ranks[call.root]
    array = call.values(call.root) if call.rank == call.root else None
    return ronde.scatter(array, root, process_set=call.members), call.part(call.root, call.rank)


def _alltoall(call: Call) -> Pair:
    got = ronde.alltoall(call.values(call.rank), process_set=call.members)
    return got, _from_all(call, call.rank)


def _barrier(call: Call) -> Pair:
    ronde.barrier(process_set=call.members)
    return None, None


KINDS: dict[str, Callable[[Call], Pair]] = {
    "allreduce": _allreduce,
    "allreduce_": _allreduce_in_place,
    "grouped_allreduce": _grouped_allreduce,
    "reduce": _reduce,
    "reducescatter": _reducescatter,
    "broadcast": _broadcast,
    "broadcast_": _broadcast_in_place,
    "allgather": _allgather,
    "gather": _gather,
    "scatter": _scatter,
    "alltoall": _alltoall,
    "barrier": _barrier,
}


def drawn(rng: random.Random, large: bool, sets: list[ronde.ProcessSet]) -> Call | None:
    """The next call, or None where this rank has no part in it. All ranks draw alike."""
    kind = rng.choice(list(KINDS))
    dtype = np.dtype(rng.choice(TYPES))
    lowest, highest = LARGE if large else (1, SMALL)
    size = int(lowest * (highest / lowest) ** rng.random()) if large or rng.random() > 0.05 else 0
    members = sets[0] if rng.random() < 0.6 else rng.choice(sets)
    op = rng.choice([ronde.Sum, ronde.Min, ronde.Max])
    root, offset = rng.randrange(members.size()), rng.randrange(PERIOD)
    if not members.included():
        return None
    count = size // dtype.itemsize // members.size() * members.size()
    return Call(kind, dtype, count, offset, op, root, members, members.rank())


def checked(call: Call) -> None:
    got, expected = KINDS[call.kind](call)
    if (got is None) != (expected is None):
        raise SystemExit(f"soak: rank {ronde.rank()}: {call} gave {got}")
    if expected is None:
        return
    if got.dtype != expected.dtype or not np.array_equal(got, expected):
        same = got.shape == expected.shape
        where = np.flatnonzero(got != expected)[:5] if same else f"shape {got.shape}"
        raise SystemExit(f"soak: rank {ronde.rank()}: wrong result of {call}, at {where}")


# ---- memory and files ----------------------------------------------------------------------------


def sampled(step: int, seconds: float) -> Array:
    """Of all ranks: the step, the seconds, resident bytes and open files."""
    # What is freed but kept for later is no leak, and depends on which large call came last.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))
    mine = np.array([[step, seconds, pages * os.sysconf("SC_PAGE_SIZE"), files]], np.float64)
    found: Array = ronde.allgather(mine)
    return found


def growth(samples: list[Array], warm: int) -> Array:
    """Of each rank, what a fitted line rises by from the warm-up to the end: bytes and files."""
    used = np.array([sample for sample in samples if sample[0, 0] >= warm])
    steps = used[:, 0, 0]
    if len(used) < 3:
        return np.zeros((used.shape[1], 2))
    slopes = [np.polyfit(steps, used[:, rank, 2:], 1)[0] for rank in range(used.shape[1])]
    rises: Array = np.array(slopes) * (steps[-1] - steps[0])
    return rises


def say(text: str) -> None:
    if ronde.rank() == 0:
        print(text, flush=True)


def soak(options: argparse.Namespace) -> int:
    size = ronde.size()
    some = [range(0, size, 2), range(size // 2), range(size - 1, max(size - 4, -1), -1)]
    sets = [ronde.global_process_set, *(ronde.ProcessSet(ranks) for ranks in some)]
    distinct = {
        tuple(members.ranks): members for members in sets[1:] if 1 < len(members.ranks) < size
    }
    sets = [sets[0], *distinct.values()]
    for members in sets[1:]:
        ronde.add_process_set(members)
    rng = random.Random(options.seed)
    total = options.small + options.large
    each = math.ceil(total / options.large) if options.large else total + 1
    interval = max(total // SAMPLES, 1)
    start = time.monotonic()
    samples: list[Array] = []
    done = 0
    while done < total:
        call = drawn(rng, (done + 1) % each == 0, sets)
        if call is not None:
            checked(call)
        done += 1
        if done % interval and done < total:
            continue
        passing = ronde.ProcessSet(range(0, size, 2)) if not distinct else ronde.ProcessSet([0])
        ronde.add_process_set(passing)
        ronde.remove_process_set(passing)
        samples.append(sampled(done, time.monotonic() - start))
        _, seconds, memory, files = samples[-1].T
        say(
            f"{done:>10} of {total}  {seconds[0]:7.0f} s  "
            f"memory {memory.min() / MIB:.1f} to {memory.max() / MIB:.1f} MiB  "
            f"files {files.min():.0f} to {files.max():.0f}"
        )
        if options.minutes and seconds.max() > 60 * options.minutes:
            break
    bytes_, files = growth(samples, int(WARM_UP * done)).T
    failed = bytes_.max() > options.growth * MIB or files.max() > 0.5
    say(
        f"{'FAILED' if failed else 'ok'}: {done} calls on {size} ranks, "
        f"{done // each} of them large, seed {options.seed}, {samples[-1][0, 1]:.0f} s; "
        f"no wrong result; after the warm-up memory grew by at most {bytes_.max() / MIB:.2f} MiB "
        f"(limit {options.growth:g}), files by {files.max():.2f} (limit 0.5)"
    )
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", type=int, default=100_000, metavar="N", help="0 B to 4 KB")
    parser.add_argument("--large", type=int, default=50, metavar="M", help="64 KB to 64 MB")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--minutes", type=float, default=0, metavar="LIMIT", help="end by then")
    parser.add_argument(
        "--growth", type=float, default=16, metavar="MIB", help="of memory, after the warm-up (16)"
    )
    options = parser.parse_args()
    if options.small < 0 or options.large < 0 or options.small + options.large < 1:
        parser.error("no calls to make")
    ronde.init()
    return soak(options)


if __name__ == "__main__":
    sys.exit(main())

"""What the papers promise, for ranks that all hold equal chunks, written apart from the schedules.

A formula gives, for the root or rank 0: steps, messages, and as multiples of the whole vector the
elements sent, received and reduced.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple


class Promise(NamedTuple):
    steps: int
    messages: int
    sent: Fraction
    received: Fraction
    reduced: Fraction


def levels(size: int) -> int:
    """L = ceil(log2 P)"""
    level = 0
    while 2**level < size:
        level += 1
    return level


def core(size: int) -> int:
    """The largest power of two of ranks."""
    return 1 << (size.bit_length() - 1)


def share(size: int) -> Fraction:
    """(P-1)/P of the vector: all chunks but one."""
    return Fraction(size - 1, size)


def folded(size: int) -> int:
    """1 where a surplus of ranks is folded."""
    return int(core(size) < size)


def ring(phases: int, reducing: int) -> Callable[[int], Promise]:
    def promise(size: int) -> Promise:
        steps, volume = phases * (size - 1), phases * share(size)
        return Promise(steps, steps, volume, volume, reducing * share(size))

    return promise


def direct(phases: int, reducing: int) -> Callable[[int], Promise]:
    def promise(size: int) -> Promise:
        volume = phases * share(size)
        steps = phases * (size > 1)
        return Promise(steps, phases * (size - 1), volume, volume, reducing * share(size))

    return promise


def alltoall(size: int) -> Promise:
    return direct(1, 0)(size)._replace(steps=1)  # even alone, a rank copies its own part


def halving_doubling(phases: int, reducing: int) -> Callable[[int], Promise]:
    def promise(size: int) -> Promise:
        fold = folded(size)
        steps = phases * levels(core(size)) + 2 * fold
        volume = phases * share(core(size)) + fold
        return Promise(steps, steps, volume, volume, reducing * share(core(size)) + fold)

    return promise


def recursive_doubling(size: int) -> Promise:
    steps = levels(core(size)) + 2 * folded(size)
    volume = Fraction(levels(core(size)) + folded(size))
    return Promise(steps, steps, volume, volume, volume)


def circulant(phases: int, reducing: int) -> Callable[[int], Promise]:
    def promise(size: int) -> Promise:
        messages, open_chunks = 0, size
        while open_chunks > 1:
            moved = open_chunks // 2
            messages += 1 if moved == 1 else 2  # rank 0's ranges wrap round
            open_chunks -= moved
        volume = phases * share(size)
        steps = phases * levels(size)
        return Promise(steps, phases * messages, volume, volume, reducing * share(size))

    return promise


def one_shot(size: int) -> Promise:
    volume = Fraction(size - 1)
    return Promise(int(size > 1), size - 1, volume, volume, volume)


def tree(
    sent: Callable[[int], Fraction], received: Callable[[int], Fraction], reducing: bool
) -> Callable[[int], Promise]:
    def promise(size: int) -> Promise:
        reduced = received(size) if reducing else Fraction(0)
        return Promise(levels(size), levels(size), sent(size), received(size), reduced)

    return promise


def nothing(size: int) -> Fraction:
    return Fraction(0)


def vector_each_level(size: int) -> Fraction:
    return Fraction(levels(size))


def scatter_allgather(size: int) -> Promise:
    steps = levels(size) + size - 1
    return Promise(steps, steps, 2 * share(size), share(size), Fraction(0))


def reduce_scatter_gather(size: int) -> Promise:
    steps, messages = size - 1 + (size > 1), 2 * (size - 1)
    return Promise(steps, messages, share(size), 2 * share(size), share(size))


def at_root(sending: bool) -> Callable[[int], Promise]:
    def promise(size: int) -> Promise:
        sent, received = (share(size), Fraction(0)) if sending else (Fraction(0), share(size))
        return Promise(int(size > 1), size - 1, sent, received, Fraction(0))

    return promise


PROMISES: dict[tuple[str, str], Callable[[int], Promise]] = {
    ("allreduce", "ring"): ring(2, 1),
    ("allreduce", "halving_doubling"): halving_doubling(2, 1),
    ("allreduce", "recursive_doubling"): recursive_doubling,
    ("allreduce", "circulant"): circulant(2, 1),
    ("allreduce", "direct"): direct(2, 1),
    ("allreduce", "one_shot"): one_shot,
    ("reducescatter", "ring"): ring(1, 1),
    ("reducescatter", "halving_doubling"): halving_doubling(1, 1),
    ("reducescatter", "circulant"): circulant(1, 1),
    ("reducescatter", "direct"): direct(1, 1),
    ("allgather", "ring"): ring(1, 0),
    ("allgather", "halving_doubling"): halving_doubling(1, 0),
    ("allgather", "circulant"): circulant(1, 0),
    ("allgather", "direct"): direct(1, 0),
    ("broadcast", "tree"): tree(vector_each_level, nothing, reducing=False),
    ("broadcast", "scatter_allgather"): scatter_allgather,
    ("reduce", "tree"): tree(nothing, vector_each_level, reducing=True),
    ("reduce", "reduce_scatter_gather"): reduce_scatter_gather,
    ("gather", "tree"): tree(nothing, share, reducing=False),
    ("gather", "direct"): at_root(sending=False),
    ("scatter", "tree"): tree(share, nothing, reducing=False),
    ("scatter", "direct"): at_root(sending=True),
    ("alltoall", "direct"): alltoall,
}

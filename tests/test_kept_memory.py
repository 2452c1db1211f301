"""The memory that is kept for large results to come: it is bounded, and can be had back."""

from __future__ import annotations

import numpy as np
import pytest
import ronde
from ronde import _core

MIB = 1 << 20

ronde.init()


def result(mib: int) -> np.ndarray:
    return ronde.allreduce(np.ones(mib * MIB, np.uint8), op=ronde.Sum)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    _core.release_kept()


def test_what_was_freed_is_kept_until_it_is_released() -> None:
    held = result(2)
    assert _core.release_kept() == 0
    del held
    assert _core.release_kept() == 2 * MIB
    assert _core.release_kept() == 0


def test_more_than_a_little_is_not_kept() -> None:
    """How much depends on what is in use, as of failed calls of tests before this one."""
    sizes = (60, 50, 40, 30, 70, 20)
    for mib in sizes:
        result(mib)
    oldest_gone = [sum(sizes[first:]) * MIB for first in range(1, len(sizes))]
    assert _core.release_kept() in oldest_gone


def test_a_large_result_is_kept_beside_smaller_ones() -> None:
    """Otherwise each of many large calls would have to touch new memory."""
    for mib in (2, 6, 64, 64):
        result(mib)
    assert _core.release_kept() == (2 + 6 + 64) * MIB


def test_results_come_right_after_a_release() -> None:
    first = result(4)
    _core.release_kept()
    assert (first == 1).all() and (result(4) == 1).all()


def test_results_of_groups_and_of_compressed_calls_are_kept_too() -> None:
    x = np.ones(MIB, np.float32)
    ronde.allreduce(x, compression=ronde.compression.int8())
    assert _core.release_kept() == x.nbytes
    ronde.grouped_allreduce([x, x])
    # Both results, and the vector that they were packed into.
    assert _core.release_kept() == 4 * x.nbytes

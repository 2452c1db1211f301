"""The public asynchronous calls, on one rank; tests/mpi has them on several."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import ronde

ronde.init()


def test_every_call_gives_what_the_blocking_one_gives() -> None:
    x = np.arange(6.0).reshape(3, 2)
    pairs: list[tuple[Any, Any]] = [
        (ronde.allreduce_async(x, ronde.Sum), ronde.allreduce(x, ronde.Sum)),
        (ronde.allreduce_async(3.5), ronde.allreduce(3.5)),
        (ronde.allreduce_async(x[:, ::-1]), ronde.allreduce(x[:, ::-1])),
        (ronde.reduce_async(x, 0, ronde.Max), ronde.reduce(x, 0, ronde.Max)),
        (ronde.reducescatter_async(x, ronde.Sum), ronde.reducescatter(x, ronde.Sum)),
        (ronde.broadcast_async(x), ronde.broadcast(x)),
        (ronde.allgather_async(x), ronde.allgather(x)),
        (ronde.alltoall_async(x), ronde.alltoall(x)),
    ]
    for handle, expected in pairs:
        found = handle.wait()
        assert type(found) is type(expected)
        np.testing.assert_array_equal(found, expected)
        assert handle.wait() is found
    joined, received = ronde.alltoall_async(x, splits=[3]).wait()
    assert (joined == x).all() and received == [3]
    assert ronde.barrier_async().wait() is None
    grouped = ronde.grouped_allreduce_async([x, 2.0], ronde.Sum, "g").wait()
    assert (grouped[0] == x).all() and grouped[1] == 2.0


def test_in_place() -> None:
    for x in (np.arange(6.0), np.arange(12.0)[::2], bytearray(b"abc")):
        before = np.array(x)
        handle = ronde.allreduce_async_(x, ronde.Sum)
        assert handle.wait() is x
        assert (np.array(x) == before).all()
        assert ronde.broadcast_async_(x).wait() is x
    xs = [np.ones(3), np.ones((2, 2))]
    found = ronde.grouped_allreduce_async_(xs, ronde.Sum).wait()
    assert found[0] is xs[0] and found[1] is xs[1]


def test_horovods_names() -> None:
    handle = ronde.allreduce_async(np.ones(3), name="w")
    assert ronde.poll(handle) in (True, False)
    assert (ronde.synchronize(handle) == 1).all()
    assert ronde.poll(handle)


def test_handles_are_awaited() -> None:
    async def program() -> list[Any]:
        return await asyncio.gather(
            ronde.allreduce_async(np.ones(3), name="a"), ronde.allreduce_async(2.0, name="b")
        )

    first, second = asyncio.run(program())
    assert (first == 1).all() and second == 2.0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: ronde.allreduce_async("abc"), TypeError, "x"),
        (lambda: ronde.allreduce_async(np.ones(3, int)), TypeError, "average"),
        (lambda: ronde.allreduce_async(np.ones(3), name=3), TypeError, "name must be a string"),
        (lambda: ronde.allreduce_async_(3.0), TypeError, "in place"),
        (lambda: ronde.broadcast_async(np.ones(3), 5), ValueError, "5"),
        (lambda: ronde.alltoall_async(np.ones(3), splits=[1]), ValueError, "do not add up"),
        (lambda: ronde.grouped_allreduce_async(3.0), TypeError, "list of arrays"),
        (lambda: ronde.reducescatter_async(3.0), TypeError, "at least one dimension"),
    ],
)
def test_what_is_wrong_by_itself_raises_at_once(call: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        call()

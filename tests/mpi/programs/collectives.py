"""Every public collective, on all dtypes and kinds of arrays, against NumPy. Prints one line at the end."""

from __future__ import annotations

import array
import itertools
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import ronde

sys.path.append(str(Path(__file__).parents[2] / "collective"))
from values import CASES, DTYPES, example, numpy_dtype

COUNTS = (0, 1, 3, 1000, 8192)


def dtypes() -> list[np.dtype]:
    return [numpy_dtype(dtype) for dtype in DTYPES]


def check(result: np.ndarray, expected: np.ndarray) -> None:
    assert type(result) is np.ndarray
    assert result.dtype == expected.dtype and result.shape == expected.shape, (result, expected)
    assert result.tobytes() == expected.tobytes(), (result, expected)


def reductions(rank: int, size: int) -> None:
    for count, (dtype, op) in itertools.product(COUNTS, CASES):
        inputs, expected = example(size, count, dtype, op)
        mine = inputs[rank].copy()
        check(ronde.allreduce(inputs[rank], op), expected)
        assert ronde.allreduce_(mine, op) is mine
        check(mine, expected)
        result = ronde.reduce(inputs[rank], size - 1, op)
        if rank == size - 1:
            check(result, expected)
        else:
            assert result is None
        part = ronde.reducescatter(inputs[rank], op)
        start = rank * (count // size) + min(rank, count % size)
        check(part, expected[start : start + count // size + (rank < count % size)])


def averages(rank: int, size: int) -> None:
    for dtype in dtypes()[-4:]:
        x = np.full(10, rank * size, dtype)
        check(ronde.allreduce(x), np.full(10, size * (size - 1) / 2, dtype))
        scaled = ronde.allreduce(x, ronde.Sum, prescale_factor=0.5, postscale_factor=2.0)
        check(scaled, np.full(10, size * size * (size - 1) / 2, dtype))
    for dtype in dtypes()[:9]:
        try:
            ronde.allreduce(np.zeros(3, dtype))
        except TypeError as error:
            assert "use op=ronde.Sum" in str(error)
        else:
            raise AssertionError("an average of whole numbers was computed")


def largest_averages(rank: int, size: int) -> None:
    """Of numbers that fit their type, though their sum does not."""
    for kind, count in itertools.product(("float16", ml_dtypes.bfloat16), (size, 1000, 100_003)):
        x = np.full(count, ml_dtypes.finfo(kind).max, kind)
        for result in (
            ronde.allreduce(x),
            ronde.allreduce(x, prescale_factor=4.0, postscale_factor=0.25),
            ronde.allreduce_(x.copy()),
            *ronde.grouped_allreduce([x, x[:7]]),
            ronde.reducescatter(x),
            ronde.reduce(x, size - 1),
        ):
            if result is not None:
                check(result, x[: result.size])


def shapes_and_kinds(rank: int, size: int) -> None:
    total = size * (size - 1) // 2
    check(ronde.allreduce(np.array(rank), ronde.Sum), np.array(total))  # no dimensions
    check(ronde.allreduce(np.empty((0, 3)), ronde.Sum), np.empty((0, 3)))  # no elements
    grid = np.arange(24.0).reshape(4, 6) + rank
    expected = np.arange(24.0).reshape(4, 6) * size + total
    check(ronde.allreduce(grid.T, ronde.Sum), np.ascontiguousarray(expected.T))  # not contiguous
    check(ronde.allreduce(grid[::-1, ::2], ronde.Sum), np.ascontiguousarray(expected[::-1, ::2]))
    ronde.allreduce_(grid[:, 1:3], ronde.Sum)  # in place, not contiguous
    assert (grid[:, 1:3] == expected[:, 1:3]).all() and (
        grid[:, 0] == np.arange(0, 24, 6) + rank
    ).all()
    frozen = np.full(5, rank)
    frozen.flags.writeable = False
    check(ronde.allreduce(frozen, ronde.Sum), np.full(5, total))
    try:
        ronde.allreduce_(frozen, ronde.Sum)
    except ValueError as error:
        assert "read only" in str(error)
    else:
        raise AssertionError("a read-only array was written")
    swapped = np.full(3, rank, ">i4")  # the other byte order
    assert (ronde.allreduce(swapped, ronde.Sum) == total).all()
    ronde.allreduce_(swapped, ronde.Sum)
    assert swapped.dtype == ">i4" and (swapped == total).all()
    buffer = array.array("d", [rank, 1.0])
    assert ronde.allreduce(buffer, ronde.Sum).tolist() == [total, size]
    ronde.allreduce_(buffer, ronde.Sum)
    assert buffer.tolist() == [total, size]
    for number in (rank, float(rank), np.float32(rank), np.int16(rank)):
        result = ronde.allreduce(number, ronde.Sum)
        assert type(result) is type(number) and result == total
    assert ronde.allreduce(rank == 0, ronde.Max) is True
    joined = ronde.allgather(float(rank))
    assert joined.tolist() == list(range(size))


def movements(rank: int, size: int) -> None:
    for root in {0, size // 2, size - 1}:
        for dtype in dtypes():
            x = np.full((3, 2), rank % 2, dtype)
            check(ronde.broadcast(x, root), np.full((3, 2), root % 2, dtype))
            assert (x == rank % 2).all()
            assert ronde.broadcast_(x, root) is x
            assert (x == root % 2).all()
        assert ronde.broadcast_object({"rank": rank, "text": "é" * rank}, root)["rank"] == root
        ragged = [np.full((r % 3, 2), r, np.int16) for r in range(size)]
        result = ronde.gather(ragged[rank], root)
        assert (result is None) == (rank != root)
        if rank == root:
            check(result, np.concatenate(ragged))
        everything = np.arange((size + 1) * 3, dtype=np.float32).reshape(size + 1, 3)
        part = ronde.scatter(everything if rank == root else None, root)
        start = rank + (rank > 0)
        check(part, everything[start : rank + 2])
        splits = [0] * (size - 1) + [size + 1]
        part = ronde.scatter(everything, root, splits=splits)
        check(part, everything if rank == size - 1 else everything[:0])
    check(ronde.allgather(ragged[rank]), np.concatenate(ragged))
    check(ronde.allgather(np.empty((rank, 0))), np.empty((size * (size - 1) // 2, 0)))
    assert ronde.allgather_object([rank] * rank) == [[r] * r for r in range(size)]
    check(ronde.alltoall(np.arange(size) + 100 * rank), np.arange(size) * 100 + rank)
    rows = [(rank + target) % 3 for target in range(size)]
    result, received = ronde.alltoall(np.full((sum(rows), 2), rank), rows)
    assert received == [(source + rank) % 3 for source in range(size)]
    check(result, np.repeat(np.arange(size), received)[:, None].repeat(2, axis=1))
    ronde.barrier()


def groups(rank: int, size: int) -> None:
    total = size * (size - 1) // 2
    arrays = [
        np.full(3, rank, np.float32),
        np.full((2, 2), rank, np.int64),
        np.array(rank, np.float32),
    ]
    results = ronde.grouped_allreduce(arrays, ronde.Sum)
    for x, result in zip(arrays, results, strict=True):
        check(result, np.full(x.shape, total, x.dtype))
        assert (x == rank).all()
    assert ronde.grouped_allreduce([]) == []
    returned = ronde.grouped_allreduce_(arrays, ronde.Sum)
    assert all(a is b for a, b in zip(arrays, returned, strict=True))
    assert all((x == total).all() for x in arrays)
    parts = ronde.grouped_allgather([np.full(rank, rank), np.full((1, 2), rank)])
    assert parts[0].size == total and parts[1].shape == (size, 2)
    parts = ronde.grouped_reducescatter([np.ones(size), np.ones((size, 3))], ronde.Sum)
    assert parts[0].tolist() == [size] and parts[1].tolist() == [[size] * 3]
    parameters = {
        "w": np.full((4, 4), rank, np.float32),
        "b": np.full(4, rank)[::2],
        "s": np.array(rank),
    }
    ronde.broadcast_parameters(parameters, size - 1)
    assert all((x == size - 1).all() for x in parameters.values())
    ronde.broadcast_parameters(parameters.items())
    ronde.broadcast_parameters(list(parameters.values()))


def process_sets(rank: int, size: int) -> None:
    evens = ronde.ProcessSet(range(0, size, 2))
    if evens.ranks != list(range(size)):
        assert ronde.add_process_set(evens) is evens
        assert evens.included() == (rank % 2 == 0) and evens.size() == (size + 1) // 2
        if evens.included():
            assert evens.rank() == rank // 2
            assert ronde.allreduce(rank, ronde.Sum, process_set=evens) == sum(evens.ranks)
            largest = np.full(5000, 65504.0, np.float16)
            check(ronde.allreduce(largest, process_set=evens), largest)
            assert (
                ronde.broadcast_object(rank, evens.ranks[-1], process_set=evens) == evens.ranks[-1]
            )
        else:
            try:
                ronde.barrier(process_set=evens)
            except ValueError as error:
                assert "not a member" in str(error)
            else:
                raise AssertionError("a rank outside used the set")
        ronde.remove_process_set(evens)
    last = ronde.add_process_set([size - 1]) if size > 1 else ronde.global_process_set
    if last.included():
        assert ronde.allgather_object(rank, process_set=last) == [size - 1]
    ronde.barrier()


def main() -> None:
    ronde.init()
    rank, size = ronde.rank(), ronde.size()
    assert size == int(sys.argv[1]), size
    assert ronde.local_rank() == rank and ronde.local_size() == size
    assert ronde.cross_rank() == 0 and ronde.cross_size() == 1
    parts = (
        reductions,
        averages,
        largest_averages,
        shapes_and_kinds,
        movements,
        groups,
        process_sets,
    )
    for part in parts:
        part(rank, size)
    ronde.shutdown()
    assert not ronde.is_initialized()
    ronde.init()  # once more
    assert ronde.allreduce(1, ronde.Sum) == size
    if rank == 0:
        print("all collectives are right on", size, "ranks")


if __name__ == "__main__":
    main()

"""Collectives of arrays in the memory of a GPU, each against the same call with NumPy arrays.

    device_arrays.py [interface|dlpack|cupy|torch|mixed|nccl]

Arrays of CuPy and torch need a GPU; those of `interface` and `dlpack` are other libraries', and suit the fake
driver too.
`mixed`: every second rank has them, and the others arrays of NumPy. `nccl`: each rank has
them on a GPU of its own.
"""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import ronde
from ronde import device_arrays
from ronde.compression import powersgd, shared_scale

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float16", "float32", "float64"]


class Array:
    """Another library's, with a stream that has much to do (the fake driver delays what is enqueued)."""

    def __init__(self, values: np.ndarray, read_only: bool = False) -> None:
        device = ronde.local_rank() if KIND == "nccl" else 0
        self.values = ronde.DeviceArray(values.shape, values.dtype, device)
        self.read_only = read_only
        written = device_arrays.on_device(self.values)
        assert written is not None
        written.write(np.ascontiguousarray(values), 1)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = self.values.__cuda_array_interface__
        return {**interface, "data": (interface["data"][0], self.read_only), "stream": 1}


class Lent:
    """Of a library that knows DLPack and nothing else: of its version 1, or, as arrays that must not
    be changed, of before."""

    def __init__(self, values: ronde.DeviceArray, read_only: bool = False) -> None:
        self.values = values
        self.read_only = read_only

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()

    def __dlpack__(self, *, stream: int, **version: Any) -> Any:
        if self.read_only and version:
            raise TypeError("max_version is not known")
        return self.values.__dlpack__(stream=stream, **version)

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(from_dlpack=Lent)


KIND = sys.argv[1] if len(sys.argv) > 1 else "interface"


def is_plain() -> bool:
    return KIND == "mixed" and ronde.rank() % 2 == 1


def on_device(values: np.ndarray) -> Any:
    if KIND == "cupy":
        import cupy

        return cupy.asarray(values) + cupy.zeros(
            (), values.dtype
        )  # by a kernel, perhaps under way still
    if KIND == "torch":
        import torch

        return torch.from_numpy(values).cuda() + 0
    if KIND == "dlpack":
        return Lent(Array(values).values)
    if is_plain():
        return values.copy()
    # An empty array of a library that is not known is on the GPU that the thread uses.
    return Array(values).values if KIND == "nccl" and not values.size else Array(values)


def host(x: Any) -> np.ndarray:
    if KIND == "cupy":
        return x.get()
    if KIND == "torch":
        return x.cpu().numpy()
    if is_plain():
        return x
    read = device_arrays.on_device(x)
    assert read is not None
    return read.read()


def same(device: Any, expected: np.ndarray) -> None:
    assert isinstance(device, np.ndarray) == is_plain(), "it is of another kind than it was"
    assert isinstance(device, Lent) == (KIND == "dlpack"), "it is of another kind than it was"
    found = host(device)
    assert found.dtype == expected.dtype, (found.dtype, expected.dtype)
    np.testing.assert_array_equal(found, expected)


def values(dtype: str, shape: tuple[int, ...], least: int = 0, below: int = 100) -> np.ndarray:
    random = np.random.default_rng(ronde.rank())
    if dtype == "bool":
        least, below = 0, 2
    return random.integers(least, below, shape).astype(dtype)


def repeated() -> None:
    """What is short and on the host might be reduced while the ranks agree to repeat it."""
    for step in range(4):
        x = values("float32", (5,)) + np.float32(step)
        found = ronde.allreduce_async(on_device(x), ronde.Sum, "repeated").wait()
        same(found, ronde.allreduce(x, ronde.Sum))


def collectives(dtype: str, shape: tuple[int, ...]) -> None:
    x = values(dtype, shape)
    few = values(dtype, shape, 1, 3)  # whose product is exact in every order
    for op in (ronde.Sum, ronde.Max, ronde.Min, ronde.Product):
        each = few if op == ronde.Product else x
        same(ronde.allreduce(on_device(each), op), ronde.allreduce(each, op))
        same(ronde.allreduce_async(on_device(each), op).wait(), ronde.allreduce(each, op))
    mine = on_device(x)
    assert ronde.allreduce_(mine, ronde.Sum) is mine
    same(mine, ronde.allreduce(x, ronde.Sum))
    mine = on_device(x)
    assert ronde.broadcast_(mine, 1) is mine
    same(mine, ronde.broadcast(x, 1))
    mine = on_device(x)
    assert ronde.allreduce_async_(mine, ronde.Max).wait() is mine
    same(mine, ronde.allreduce(x, ronde.Max))
    same(ronde.broadcast(on_device(x), 0), ronde.broadcast(x, 0))
    same(ronde.allgather(on_device(x)), ronde.allgather(x))
    same(ronde.reducescatter(on_device(x), ronde.Sum), ronde.reducescatter(x, ronde.Sum))
    same(ronde.alltoall(on_device(x)), ronde.alltoall(x))
    # The arrays that came in are gone when their results are made.
    pending = [
        (ronde.broadcast_async(on_device(x), 1), ronde.broadcast(x, 1)),
        (ronde.allgather_async(on_device(x)), ronde.allgather(x)),
        (ronde.reducescatter_async(on_device(x), ronde.Sum), ronde.reducescatter(x, ronde.Sum)),
        (ronde.alltoall_async(on_device(x)), ronde.alltoall(x)),
    ]
    for handle, expected in pending:
        same(handle.wait(), expected)
    at_root = [
        (ronde.reduce(on_device(x), 0, ronde.Sum), ronde.reduce(x, 0, ronde.Sum)),
        (ronde.reduce_async(on_device(x), 0, ronde.Max).wait(), ronde.reduce(x, 0, ronde.Max)),
        (ronde.gather(on_device(x)), ronde.gather(x)),
    ]
    for found, expected in at_root:
        if ronde.rank() == 0:
            same(found, expected)
        else:
            assert found is None
    root = on_device(x) if ronde.rank() == 0 else None
    np.testing.assert_array_equal(
        ronde.scatter(root), ronde.scatter(x if ronde.rank() == 0 else None)
    )
    mine = [on_device(x), on_device(x + x)]
    in_place = ronde.grouped_allreduce_(mine, ronde.Sum)
    assert all(one is other for one, other in zip(in_place, mine, strict=True))
    for one, other in zip(mine, ronde.grouped_allreduce([x, x + x], ronde.Sum), strict=True):
        same(one, other)
    for one, other in zip(
        ronde.grouped_allreduce([on_device(x), on_device(x + x)], ronde.Sum),
        ronde.grouped_allreduce([x, x + x], ronde.Sum),
        strict=True,
    ):
        same(one, other)


def uneven(dtype: str, of_rows: tuple[int, ...]) -> None:
    """Ranks have different numbers of rows, the first of them none, and those of some calls no bytes."""
    size, rank = ronde.size(), ronde.rank()
    before = ronde.counters()
    x = values(dtype, (3 * rank, *of_rows))
    splits = [(rank + to) % 3 for to in range(size)]
    sent = values(dtype, (sum(splits), *of_rows))
    same(ronde.allgather(on_device(x)), ronde.allgather(x))
    for found, expected in zip(
        ronde.alltoall(on_device(sent), splits), ronde.alltoall(sent, splits), strict=True
    ):
        if isinstance(expected, list):
            assert found == expected
        else:
            same(found, expected)
    for root in range(size):
        found, expected = ronde.gather(on_device(x), root), ronde.gather(x, root)
        if rank == root:
            same(found, expected)
        else:
            assert found is None
    for one, other in zip(
        ronde.grouped_allgather([on_device(x), on_device(sent)]),
        ronde.grouped_allgather([x, sent]),
        strict=True,
    ):
        same(one, other)
    handles = [
        ronde.allgather_async(on_device(x + x)),
        ronde.alltoall_async(on_device(sent), splits),
    ]
    same(handles[0].wait(), ronde.allgather(x + x))
    same(handles[1].wait()[0], ronde.alltoall(sent, splits)[0])
    nobody = np.empty((0, *of_rows), dtype)
    same(ronde.allgather(on_device(nobody)), nobody)
    number = on_device(values(dtype, ()))
    same(ronde.allgather(number), ronde.allgather(values(dtype, ())))
    if KIND == "nccl" and rank > 0 and 0 not in of_rows:
        assert ronde.counters()["bytes_over_nccl"] > before["bytes_over_nccl"]


def training() -> None:
    """Compressed with feedback, through the optimizer: the bits of the same with NumPy arrays."""

    class Descent:
        def update_params(self, params: list[Any], grads: list[Any]) -> None:
            self.seen = [each if isinstance(each, np.ndarray) else host(each) for each in grads]

    feedback = ronde.compression.ErrorFeedback
    codecs = ["int4", "topk", powersgd(2), shared_scale(4), shared_scale(8)]
    for codec in (None, *codecs):
        # Factors over NCCL are added in NCCL's order.
        tolerance = 1e-4 if KIND == "nccl" and codec is codecs[2] else 0
        both = [codec and feedback(copy.deepcopy(codec)) for _ in range(2)]
        plain = ronde.DistributedOptimizer(Descent(), compression=both[0], name="w")
        device = ronde.DistributedOptimizer(Descent(), compression=both[1], name="w")
        for step in range(4):
            random = np.random.default_rng(10 * step + ronde.rank())
            grads = [random.standard_normal(shape, np.float32) for shape in ((75, 40), (17, 3))]
            plain.update_params([], [each.copy() for each in grads])
            device.update_params([], [on_device(each) for each in grads])
            for one, other in zip(plain.seen, device.seen, strict=True):
                np.testing.assert_allclose(one, other, tolerance, tolerance)
            if (
                codec and step == 1
            ):  # what one has kept on the GPU the other goes on with on the host
                states = [each.state_dict() for each in both]
                for each, state in zip(both, reversed(states), strict=True):
                    each.load_state_dict(state)


def errors() -> None:
    for call, words in [
        (lambda: ronde.allreduce_(Array(np.ones(3, np.float32), read_only=True)), "read only"),
        (lambda: ronde.allreduce_(Lent(ronde.DeviceArray((3,)), read_only=True)), "read only"),
        (lambda: ronde.allreduce(Strided()), "must be contiguous"),
        (lambda: ronde.allreduce(Array(np.ones(3, ">f4"))), "byte order"),
        (lambda: ronde.allreduce(Array(np.ones(3, np.complex64))), "complex64"),
    ]:
        try:
            call()
        except (TypeError, ValueError) as error:
            assert words in str(error), error
        else:
            raise AssertionError(words)
    ronde.barrier()


def brain_floats() -> None:
    """The type that interfaces but DLPack do not have."""
    import ml_dtypes

    x = values("float32", (5, 7)).astype(ml_dtypes.bfloat16)
    mine = Lent(ronde.DeviceArray(x.shape, x.dtype), read_only=True)
    seen = device_arrays.on_device(mine)
    assert seen is not None
    seen.write(x.view(np.int16), 1)
    for found in (ronde.allreduce(mine, ronde.Sum), ronde.allreduce_async(mine, ronde.Sum).wait()):
        same_bits = host(found).view(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(same_bits, ronde.allreduce(x, ronde.Sum))


class Strided(Array):
    def __init__(self) -> None:
        super().__init__(np.ones((4, 4), np.float32))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**super().__cuda_array_interface__, "shape": (4, 2), "strides": (16, 8)}


def all_of_it() -> None:
    for dtype in DTYPES:
        if KIND == "torch" and dtype.startswith("uint") and dtype != "uint8":
            continue  # torch can hardly do anything with them
        if KIND == "torch" and dtype == "bool":
            continue  # what is added is an integer then
        collectives(dtype, (4 * ronde.size(), 3))
        uneven(dtype, (3,))
    collectives("float32", (ronde.size() * 1000, 33))
    uneven("float32", ())
    uneven("float64", (2, 0))
    empty = np.empty((0, 3), np.float32)
    same(ronde.allreduce(on_device(empty)), empty)
    repeated()
    training()


ronde.init()
assert ronde.cuda_available()
all_of_it()
if KIND == "cupy":
    import cupy

    with cupy.cuda.Stream(non_blocking=True):
        all_of_it()
if KIND == "torch":
    import torch

    with torch.cuda.stream(torch.cuda.Stream()):
        all_of_it()
if KIND == "interface":
    errors()
if KIND == "dlpack":
    brain_floats()
assert (ronde.counters()["bytes_over_nccl"] > 0) == (KIND == "nccl")
if ronde.rank() == 0:
    print("as with NumPy arrays", *sys.argv[1:])

"""The collectives.

Every rank of the process set makes the same call, in the same order. Arrays are NumPy arrays, torch tensors
on the CPU, or anything that has DLPack or the buffer protocol; numbers work too. The result is of the kind
that came in. Elements: bool, int8 to int64, uint8 to uint64, float16, bfloat16, float32, float64.

All collectives raise `MismatchError` where the ranks made different calls, `StalledError` where a rank does
not come, `RankFailedError` where one is gone, and before anything is sent `TypeError` and `ValueError` for
arguments that are wrong by themselves. If a call fails in any other way than by these two, results in
place are undefined.
"""

from __future__ import annotations

import enum
import operator
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core, context
from .arrays import ArrayLike, View, is_floating, is_torch, make, view
from .process_set import ProcessSet, global_process_set

__all__ = [
    "Average",
    "Max",
    "Min",
    "Op",
    "Product",
    "Sum",
    "allgather",
    "allgather_object",
    "allreduce",
    "allreduce_",
    "alltoall",
    "barrier",
    "broadcast",
    "broadcast_",
    "broadcast_object",
    "broadcast_parameters",
    "gather",
    "grouped_allgather",
    "grouped_allreduce",
    "grouped_allreduce_",
    "grouped_reducescatter",
    "reduce",
    "reducescatter",
    "scatter",
]


class Op(enum.Enum):
    """How the contributions of the ranks become one."""

    Sum = "sum"
    Average = "average"
    Min = "min"
    Max = "max"
    Product = "product"

    def __repr__(self) -> str:
        return f"ronde.{self.name}"


Sum = Op.Sum
"""The sum. Integers wrap; for bool it is "or"."""
Average = Op.Average
"""The sum over the number of ranks, for floating types only."""
Min = Op.Min
"""The minimum. NaN wins over every number, and -0 is less than +0; for bool it is "and"."""
Max = Op.Max
"""The maximum, with NaN and zeros as for Min; for bool it is "or"."""
Product = Op.Product
"""The product. Integers wrap; for bool it is "and"."""

_CORE_OPS = {
    Op.Sum: _core.ReduceOp.sum,
    Op.Average: _core.ReduceOp.sum,
    Op.Min: _core.ReduceOp.min,
    Op.Max: _core.ReduceOp.max,
    Op.Product: _core.ReduceOp.product,
}

_abandoned: list[Any] = []
"""Arrays of calls that failed half-way. MPI may still write to them, so they live as long as the process."""


class _Keep:
    """Keeps arrays alive if the communicator fails in the block: then messages may still be under way."""

    def __init__(self, communicator: _core.Communicator, *arrays: Any) -> None:
        self.communicator = communicator
        self.arrays = arrays

    def __enter__(self) -> None:
        self.usable = not self.communicator.failure

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.usable and self.communicator.failure:
            _abandoned.append(self.arrays)


class _Reduction:
    """The checked arguments of a reduction."""

    def __init__(
        self,
        views: Sequence[View],
        op: Op,
        prescale_factor: float,
        postscale_factor: float,
        process_set: ProcessSet,
    ) -> None:
        if not isinstance(op, Op):
            raise TypeError(f"op must be one of {list(Op)}, not {op!r}")
        self.communicator = _communicator(process_set)
        self.op = op
        self.prescale = _factor("prescale_factor", prescale_factor)
        self.postscale = _factor("postscale_factor", postscale_factor)
        scaled = self.prescale != 1.0 or self.postscale != 1.0
        for each in views:
            if is_floating(each.dtype):
                continue
            if op is Average:
                raise TypeError(
                    f"the average of {each.dtype.name} would have to be rounded; "
                    "use op=ronde.Sum, or convert to a floating type"
                )
            if scaled:
                raise TypeError(
                    f"prescale_factor and postscale_factor need a floating type, not {each.dtype.name}"
                )

    def of(self, dtype: _core.DType) -> _core.Reduction:
        divisor = float(self.communicator.size) if self.op is Average else 1.0
        return _core.Reduction(dtype, _CORE_OPS[self.op], self.prescale, divisor, self.postscale)

    def call(self, kind: str, name: str | None, **fields: Any) -> _core.Call:
        return _core.Call(
            kind,
            _name(name),
            op=self.op.value,
            prescale=self.prescale,
            postscale=self.postscale,
            **fields,
        )

    def allreduce(self, call: _core.Call, views: Sequence[View], outputs: Sequence[Any]) -> None:
        inputs = [each.array for each in views]
        with _Keep(self.communicator, inputs, outputs):
            self.communicator.allreduce(call, inputs, outputs, self.of(views[0].dtype))


def _factor(what: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what} is too large for a float") from None
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a number, not {value!r}") from None


def _name(name: str | None) -> str:
    if name is None:
        return ""
    if not isinstance(name, str):
        raise TypeError(f"name must be a text, not {name!r}")
    return name.encode("utf-8", "replace").decode()


def _communicator(process_set: ProcessSet) -> _core.Communicator:
    context.world()
    if not isinstance(process_set, ProcessSet):
        raise TypeError(f"process_set must be a ronde.ProcessSet, not {type(process_set).__name__}")
    return process_set._member()


def _root(root_rank: int, process_set: ProcessSet) -> int:
    """The root's rank in the set, from its rank in the job."""
    try:
        return process_set.ranks.index(operator.index(root_rank))
    except TypeError:
        raise TypeError(f"root_rank must be a whole number, not {root_rank!r}") from None
    except ValueError:
        raise ValueError(
            f"root_rank {root_rank!r} is none of the ranks {_short(process_set.ranks)}"
        ) from None


def _short(ranks: list[int]) -> str:
    consecutive = ranks == list(range(ranks[0], ranks[-1] + 1))
    return f"{ranks[0]} to {ranks[-1]}" if consecutive else str(ranks)


def allreduce(
    x: ArrayLike,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """The reduction of `x` over all ranks, as a new array of x's kind, shape and dtype.

    `x`: an array of the same shape and dtype on all ranks. `name`: shown in errors, and compared.
    `prescale_factor`, `postscale_factor`: multiply the input before and the result after the reduction
    (floating types only).

    All ranks get the same bits. float16 and bfloat16 are added in float32 and rounded once for each
    message; docs/algorithms.md gives the error bound of every algorithm.
    """
    seen = view(x)
    reduction = _Reduction([seen], op, prescale_factor, postscale_factor, process_set)
    output = np.empty(seen.shape, seen.array.dtype)
    call = reduction.call("allreduce", name, dtype=seen.dtype, shape=seen.shape)
    reduction.allreduce(call, [seen], [output])
    return seen.wrap(output)


def allreduce_(
    x: ArrayLike,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """As `allreduce`, in place: `x` receives the result, and is returned."""
    seen = view(x, writable=True)
    reduction = _Reduction([seen], op, prescale_factor, postscale_factor, process_set)
    call = reduction.call("allreduce", name, dtype=seen.dtype, shape=seen.shape)
    reduction.allreduce(call, [seen], [seen.array])
    seen.write_back()
    return x


def grouped_allreduce(
    xs: Iterable[ArrayLike],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Any]:
    """`allreduce` of each of several arrays, fused into buckets of at most `RONDE_FUSION_BYTES`.

    The arrays may differ in dtype; those of one dtype share buckets.
    """
    seen = [view(x) for x in xs]
    outputs = [np.empty(each.shape, each.array.dtype) for each in seen]
    reduction = _Reduction(seen, op, prescale_factor, postscale_factor, process_set)
    _reduce_group(reduction, name, seen, outputs)
    return [each.wrap(output) for each, output in zip(seen, outputs, strict=True)]


def grouped_allreduce_(
    xs: Iterable[ArrayLike],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Any]:
    """As `grouped_allreduce`, in place: the arrays receive the results, and are returned."""
    xs = list(xs)
    seen = [view(x, writable=True) for x in xs]
    reduction = _Reduction(seen, op, prescale_factor, postscale_factor, process_set)
    _reduce_group(reduction, name, seen, [each.array for each in seen])
    for each in seen:
        each.write_back()
    return xs


def _reduce_group(
    reduction: _Reduction, name: str | None, views: Sequence[View], outputs: Sequence[Any]
) -> None:
    shapes = ", ".join(f"{each.dtype.name}{list(each.shape)}" for each in views)
    # The first phase 0 covers the whole group; an empty group is a call too.
    detail = f"{len(views)} arrays: {shapes}"
    reduction.communicator.barrier(reduction.call("grouped_allreduce", name, detail=detail))
    for bucket in _buckets(views):
        members = [views[i] for i in bucket]
        call = reduction.call("bucket of grouped_allreduce", name, dtype=members[0].dtype)
        reduction.allreduce(call, members, [outputs[i] for i in bucket])


def _buckets(views: Sequence[View]) -> Iterator[list[int]]:
    """Indices of arrays that travel together: one dtype, in order, up to the fusion size."""
    limit = context.world().settings.fusion_bytes
    by_dtype: dict[_core.DType, list[int]] = {}
    for i, each in enumerate(views):
        by_dtype.setdefault(each.dtype, []).append(i)
    for indices in by_dtype.values():
        bucket: list[int] = []
        filled = 0
        for i in indices:
            if bucket and filled + views[i].array.nbytes > limit:
                yield bucket
                bucket, filled = [], 0
            bucket.append(i)
            filled += views[i].array.nbytes
        yield bucket


def reduce(
    x: ArrayLike,
    root_rank: int = 0,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """As `allreduce`, with the result at `root_rank` alone; other ranks get None."""
    seen = view(x)
    reduction = _Reduction([seen], op, prescale_factor, postscale_factor, process_set)
    root = _root(root_rank, process_set)
    call = reduction.call(
        "reduce", name, dtype=seen.dtype, shape=seen.shape, root=process_set.ranks[root]
    )
    output = np.empty(seen.shape, seen.array.dtype) if reduction.communicator.rank == root else None
    with _Keep(reduction.communicator, seen, output):
        reduction.communicator.reduce(call, seen.array, output, reduction.of(seen.dtype), root)
    return None if output is None else seen.wrap(output)


def reducescatter(
    x: ArrayLike,
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """The reduction of `x` over all ranks, cut along the first dimension: each rank gets its part.

    The parts are as even as possible; lower ranks get a row more where the rows do not divide. An array
    of no dimensions is a TypeError.
    """
    seen = view(x)
    if not seen.shape:
        raise TypeError("reducescatter needs an array of at least one dimension")
    reduction = _Reduction([seen], op, prescale_factor, postscale_factor, process_set)
    size, rank = reduction.communicator.size, reduction.communicator.rank
    row = int(np.prod(seen.shape[1:], dtype=np.int64))
    rows = [seen.shape[0] // size + (r < seen.shape[0] % size) for r in range(size)]
    output = np.empty((rows[rank], *seen.shape[1:]), seen.array.dtype)
    call = reduction.call("reducescatter", name, dtype=seen.dtype, shape=seen.shape)
    counts = [n * row for n in rows]
    with _Keep(reduction.communicator, seen, output):
        reduction.communicator.reduce_scatter(
            call, seen.array, output, counts, reduction.of(seen.dtype)
        )
    return seen.wrap(output)


def grouped_reducescatter(
    xs: Iterable[ArrayLike],
    op: Op = Average,
    name: str | None = None,
    *,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Any]:
    """`reducescatter` of each of several arrays."""
    return [
        reducescatter(
            x,
            op,
            f"{name or 'group'}[{i}]",
            prescale_factor=prescale_factor,
            postscale_factor=postscale_factor,
            process_set=process_set,
        )
        for i, x in enumerate(xs)
    ]


def broadcast(
    x: ArrayLike,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """The array of `root_rank`, as a new array. All ranks pass one of the same shape and dtype."""
    seen = view(x)
    output = np.array(seen.array)
    _broadcast(seen, output, root_rank, name, process_set)
    return seen.wrap(output)


def broadcast_(
    x: ArrayLike,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """As `broadcast`, in place: `x` receives the array of the root, and is returned."""
    seen = view(x, writable=True)
    _broadcast(seen, seen.array, root_rank, name, process_set)
    seen.write_back()
    return x


def _broadcast(
    seen: View, output: Any, root_rank: int, name: str | None, process_set: ProcessSet
) -> None:
    communicator = _communicator(process_set)
    root = _root(root_rank, process_set)
    call = _core.Call(
        "broadcast", _name(name), dtype=seen.dtype, shape=seen.shape, root=process_set.ranks[root]
    )
    with _Keep(communicator, output):
        communicator.broadcast(call, output, root)


def allgather(
    x: ArrayLike, name: str | None = None, *, process_set: ProcessSet = global_process_set
) -> Any:
    """The arrays of all ranks, joined along the first dimension in the order of the ranks.

    The first dimension may differ between ranks, the others and the dtype may not. A number or an array of
    no dimensions counts as one row.
    """
    mine = _Contribution(x)
    communicator = _communicator(process_set)
    with _Keep(communicator, mine):
        return mine.joined(
            *communicator.allgather(
                mine.call("allgather", name), mine.seen.array, mine.rows, mine.row_bytes
            )
        )


def grouped_allgather(
    xs: Iterable[ArrayLike],
    name: str | None = None,
    *,
    process_set: ProcessSet = global_process_set,
) -> list[Any]:
    """`allgather` of each of several arrays."""
    return [
        allgather(x, f"{name or 'group'}[{i}]", process_set=process_set) for i, x in enumerate(xs)
    ]


def gather(
    x: ArrayLike,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """As `allgather`, with the result at `root_rank` alone; other ranks get None."""
    mine = _Contribution(x)
    communicator = _communicator(process_set)
    root = _root(root_rank, process_set)
    call = mine.call("gather", name, process_set.ranks[root])
    with _Keep(communicator, mine):
        gathered = communicator.gather(call, mine.seen.array, mine.rows, mine.row_bytes, root)
    return mine.joined(*gathered) if communicator.rank == root else None


class _Contribution:
    """An array as rows, to be joined with those of other ranks."""

    def __init__(self, x: ArrayLike) -> None:
        self.seen = view(x)
        self.shape = self.seen.shape or (1,)
        self.rows, self.row_bytes = self.shape[0], _row_bytes(self.seen.array, self.shape)

    def call(self, kind: str, name: str | None, root_rank: int = -1) -> _core.Call:
        return _core.Call(
            kind,
            _name(name),
            dtype=self.seen.dtype,
            shape=self.shape,
            any_first_dimension=True,
            root=root_rank,
        )

    def joined(self, counts: Sequence[int], data: Any) -> Any:
        rows = data.view(self.seen.array.dtype).reshape(sum(counts), *self.shape[1:])
        return self.seen.wrap(rows)


def _row_bytes(array: Any, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[1:], dtype=np.int64)) * int(array.itemsize)


def scatter(
    x: ArrayLike | None = None,
    root_rank: int = 0,
    name: str | None = None,
    *,
    splits: Sequence[int] | None = None,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """Cuts the array of `root_rank` along the first dimension; each rank gets its part.

    `x`, `splits`: looked at on the root alone. `splits` are the rows of each rank; by default the parts
    are as even as possible, and lower ranks get a row more where the rows do not divide. All ranks get
    arrays of the kind that the root passed (NumPy or torch).
    """
    communicator = _communicator(process_set)
    root = _root(root_rank, process_set)
    call = _core.Call("scatter", _name(name), root=process_set.ranks[root])
    if communicator.rank != root:
        count, data, header = communicator.scatter(call, None, [], 0, [], root)
    else:
        if x is None:
            raise TypeError("the root of a scatter must pass an array")
        seen = view(x)
        if not seen.shape:
            raise TypeError("scatter needs an array of at least one dimension")
        rows = _checked_splits(splits, seen.shape[0], communicator.size)
        told = [_DTYPES.index(seen.dtype), is_torch(x), *seen.shape[1:]]
        with _Keep(communicator, seen):
            count, data, header = communicator.scatter(
                call, seen.array, rows, _row_bytes(seen.array, seen.shape), told, root
            )
    dtype, torch, *rest = header
    return make(data, _DTYPES[dtype], (count, *rest), torch=bool(torch))


_DTYPES = list(_core.DType.__members__.values())


def _checked_splits(splits: Sequence[int] | None, rows: int, size: int) -> list[int]:
    """How many rows go to each rank."""
    if splits is None:
        return [rows // size + (rank < rows % size) for rank in range(size)]
    try:
        counts = [operator.index(n) for n in splits]
    except TypeError:
        raise TypeError(f"splits must be whole numbers, not {splits!r}") from None
    if len(counts) != size:
        raise ValueError(f"splits has {len(counts)} entries for {size} ranks")
    if min(counts) < 0 or sum(counts) != rows:
        raise ValueError(f"splits {counts} do not add up to the {rows} rows of the array")
    return counts


def alltoall(
    x: ArrayLike,
    splits: Sequence[int] | None = None,
    name: str | None = None,
    *,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """Sends the rows of `x` to the ranks, the first `splits[0]` of them to rank 0 and so on.

    Returns what came, joined in the order of the senders; with `splits` given, a pair of that and the
    list of the rows that came from each rank. Without `splits` the rows must divide by the ranks.
    """
    seen = view(x)
    if not seen.shape:
        raise TypeError("alltoall needs an array of at least one dimension")
    communicator = _communicator(process_set)
    rows, size = seen.shape[0], communicator.size
    if splits is None and rows % size:
        raise ValueError(f"{rows} rows do not divide by {size} ranks; pass splits")
    sent = _checked_splits(splits, rows, size)
    call = _core.Call(
        "alltoall", _name(name), dtype=seen.dtype, shape=seen.shape, any_first_dimension=True
    )
    with _Keep(communicator, seen):
        received, data = communicator.alltoall(
            call, seen.array, sent, _row_bytes(seen.array, seen.shape)
        )
    joined = data.view(seen.array.dtype).reshape(sum(received), *seen.shape[1:])
    result = seen.wrap(joined)
    return result if splits is None else (result, received)


def barrier(name: str | None = None, *, process_set: ProcessSet = global_process_set) -> None:
    """Returns once all ranks have called it."""
    _communicator(process_set).barrier(_core.Call("barrier", _name(name)))


def broadcast_object(
    obj: Any = None,
    root_rank: int = 0,
    name: str | None = None,
    *,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """The object of `root_rank`, pickled there and unpickled elsewhere; the root gets its own back."""
    communicator = _communicator(process_set)
    root = _root(root_rank, process_set)
    is_root = communicator.rank == root
    pickled = np.frombuffer(pickle.dumps(obj), np.uint8) if is_root else np.empty(0, np.uint8)
    length = np.array([pickled.size])
    call = _core.Call("broadcast_object", _name(name), root=process_set.ranks[root])
    with _Keep(communicator, length):
        communicator.broadcast(call, length, root)
    data = pickled.copy() if is_root else np.empty(length[0], np.uint8)
    with _Keep(communicator, data):
        communicator.broadcast(_core.Call("broadcast_object, the object", _name(name)), data, root)
    return obj if is_root else pickle.loads(data.tobytes())


def allgather_object(
    obj: Any, name: str | None = None, *, process_set: ProcessSet = global_process_set
) -> list[Any]:
    """The objects of all ranks, in the order of the ranks. They are pickled."""
    pickled = np.frombuffer(pickle.dumps(obj), np.uint8)
    call = _core.Call("allgather_object", _name(name))
    communicator = _communicator(process_set)
    with _Keep(communicator, pickled):
        lengths, data = communicator.allgather(call, pickled, pickled.size, 1)
    ends = np.cumsum(lengths)
    return [
        pickle.loads(data[end - n : end].tobytes()) for n, end in zip(lengths, ends, strict=True)
    ]


def broadcast_parameters(
    params: Mapping[str, ArrayLike] | Iterable[ArrayLike] | Iterable[tuple[str, ArrayLike]],
    root_rank: int = 0,
    *,
    process_set: ProcessSet = global_process_set,
) -> None:
    """Gives all ranks the parameters of `root_rank`, in place.

    `params`: a dictionary from names to arrays, pairs of names and arrays (torch's `named_parameters()`),
    or arrays alone. Names, shapes, dtypes and their order must be the same on all ranks.
    """
    names, arrays = _named(params)
    communicator = _communicator(process_set)
    root = _root(root_rank, process_set)
    views = [view(x, writable=True) for x in arrays]
    listed = ", ".join(
        f"{name}: {each.dtype.name}{list(each.shape)}"
        for name, each in zip(names, views, strict=True)
    )
    detail = f"{len(views)} parameters: {listed}"
    communicator.barrier(
        _core.Call("broadcast_parameters", root=process_set.ranks[root], detail=detail)
    )
    for bucket in _buckets(views):
        members = [views[i] for i in bucket]
        packed = np.concatenate([each.array.reshape(-1).view(np.uint8) for each in members])
        call = _core.Call("bucket of broadcast_parameters", root=process_set.ranks[root])
        with _Keep(communicator, packed):
            communicator.broadcast(call, packed, root)
        start = 0
        for each in members:
            end = start + each.array.nbytes
            each.array[...] = packed[start:end].view(each.array.dtype).reshape(each.shape)
            each.write_back()
            start = end


def _named(params: Any) -> tuple[list[str], list[Any]]:
    if isinstance(params, Mapping):
        return [str(name) for name in params], list(params.values())
    items = list(params)
    if all(
        isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in items
    ):
        return [name for name, _ in items], [array for _, array in items]
    return [str(i) for i in range(len(items))], items

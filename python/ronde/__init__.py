"""Collective communication for distributed training, over any MPI, that does not hang.

    import ronde
    ronde.init()
    gradients = ronde.allreduce(gradients)

Importing Ronde starts nothing: `ronde.init` does, and imports `mpi4py.MPI` then.

Every rank of a process set makes the same collective calls, in the same order. Arrays are NumPy
arrays, torch tensors, CuPy arrays, or anything that has DLPack or the buffer protocol; numbers work
too. The result is of the kind that came in; only what has nothing but the buffer protocol, like an
mmap, gives a NumPy array. Elements: bool, int8 to int64, uint8 to uint64, float16, bfloat16,
float32, float64.

Collectives raise `MismatchError` where the ranks made different calls, `StalledError` where a rank
does not come, and `RankFailedError` where one is gone. Arguments that are wrong by themselves raise
`TypeError` and `ValueError` before anything is sent. After a stall or a failure, results in place
are undefined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._core import __version__

if TYPE_CHECKING:
    from . import compression
    from .context import (
        add_process_set,
        cross_rank,
        cross_size,
        init,
        is_initialized,
        local_rank,
        local_size,
        rank,
        remove_process_set,
        shutdown,
        size,
    )
    from .cuda import cuda_available, cuda_built, nccl_version
    from .device_arrays import DeviceArray
    from .errors import (
        MismatchError,
        RankFailedError,
        RondeError,
        StalledError,
        UnavailableError,
    )
    from .handles import (
        Handle,
        allgather_async,
        allreduce_async,
        allreduce_async_,
        alltoall_async,
        barrier_async,
        broadcast_async,
        broadcast_async_,
        grouped_allreduce_async,
        grouped_allreduce_async_,
        poll,
        reduce_async,
        reducescatter_async,
        synchronize,
    )
    from .joining import join
    from .memory import empty
    from .movements import (
        allgather,
        alltoall,
        barrier,
        broadcast,
        broadcast_,
        gather,
        grouped_allgather,
        scatter,
    )
    from .objects import allgather_object, broadcast_object, broadcast_parameters
    from .observing import counters, start_timeline, stop_timeline
    from .optimizer import DistributedOptimizer
    from .process_set import ProcessSet, global_process_set
    from .reductions import (
        Adasum,
        Average,
        Max,
        Min,
        Op,
        Product,
        Sum,
        allreduce,
        allreduce_,
        grouped_allreduce,
        grouped_allreduce_,
        grouped_reducescatter,
        reduce,
        reducescatter,
    )

__all__ = [
    "Adasum",
    "Average",
    "DeviceArray",
    "DistributedOptimizer",
    "Handle",
    "Max",
    "Min",
    "MismatchError",
    "Op",
    "ProcessSet",
    "Product",
    "RankFailedError",
    "RondeError",
    "StalledError",
    "Sum",
    "UnavailableError",
    "__version__",
    "add_process_set",
    "allgather",
    "allgather_async",
    "allgather_object",
    "allreduce",
    "allreduce_",
    "allreduce_async",
    "allreduce_async_",
    "alltoall",
    "alltoall_async",
    "barrier",
    "barrier_async",
    "broadcast",
    "broadcast_",
    "broadcast_async",
    "broadcast_async_",
    "broadcast_object",
    "broadcast_parameters",
    "compression",
    "counters",
    "cross_rank",
    "cross_size",
    "cuda_available",
    "cuda_built",
    "empty",
    "gather",
    "global_process_set",
    "grouped_allgather",
    "grouped_allreduce",
    "grouped_allreduce_",
    "grouped_allreduce_async",
    "grouped_allreduce_async_",
    "grouped_reducescatter",
    "init",
    "is_initialized",
    "join",
    "local_rank",
    "local_size",
    "nccl_version",
    "poll",
    "rank",
    "reduce",
    "reduce_async",
    "reducescatter",
    "reducescatter_async",
    "remove_process_set",
    "scatter",
    "shutdown",
    "size",
    "start_timeline",
    "stop_timeline",
    "synchronize",
]

if not TYPE_CHECKING:
    # Loaded at the first use of a name, so that `ronde --version` and `ronde doctor` need no NumPy.
    _MODULES = (
        "compression",
        "context",
        "cuda",
        "device_arrays",
        "errors",
        "handles",
        "joining",
        "memory",
        "movements",
        "objects",
        "observing",
        "optimizer",
        "process_set",
        "reductions",
    )

    def __getattr__(name):
        from importlib import import_module

        if name in _MODULES:
            return import_module(f".{name}", __name__)
        for module in map(__getattr__, _MODULES if name in __all__ else ()):
            if name in module.__all__:
                globals()[name] = getattr(module, name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*__all__, *_MODULES})

"""Collective communication for distributed training, over any MPI, that does not hang.

    import ronde
    ronde.init()
    gradients = ronde.allreduce(gradients)

Importing Ronde starts nothing: `ronde.init` does, and imports `mpi4py.MPI` then.
"""

from __future__ import annotations

from ._core import __version__
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
from .errors import (
    MismatchError,
    RankFailedError,
    RondeError,
    StalledError,
    UnavailableError,
)
from .ops import (
    Average,
    Max,
    Min,
    Op,
    Product,
    Sum,
    allgather,
    allgather_object,
    allreduce,
    allreduce_,
    alltoall,
    barrier,
    broadcast,
    broadcast_,
    broadcast_object,
    broadcast_parameters,
    gather,
    grouped_allgather,
    grouped_allreduce,
    grouped_allreduce_,
    grouped_reducescatter,
    reduce,
    reducescatter,
    scatter,
)
from .optimizer import DistributedOptimizer
from .process_set import ProcessSet, global_process_set

__all__ = [
    "Average",
    "DistributedOptimizer",
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
    "allgather_object",
    "allreduce",
    "allreduce_",
    "alltoall",
    "barrier",
    "broadcast",
    "broadcast_",
    "broadcast_object",
    "broadcast_parameters",
    "cross_rank",
    "cross_size",
    "gather",
    "global_process_set",
    "grouped_allgather",
    "grouped_allreduce",
    "grouped_allreduce_",
    "grouped_reducescatter",
    "init",
    "is_initialized",
    "local_rank",
    "local_size",
    "rank",
    "reduce",
    "reducescatter",
    "remove_process_set",
    "scatter",
    "shutdown",
    "size",
]

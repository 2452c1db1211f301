"""Ronde for torch, with the functions of Horovod.

    import ronde.torch as hvd

runs programs that were written for `horovod.torch`. docs/migrating.md has all names, and what differs.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        'ronde.torch needs torch, which is not installed: pip install "ronde[torch]"'
    ) from None

from . import elastic, mpi_ops
from ._comm_hook import CommHookState, comm_hook
from .compression import Compression
from .elastic import HostsUpdatedInterrupt
from .functions import (
    allgather_object,
    broadcast_object,
    broadcast_object_fn,
    broadcast_optimizer_state,
    broadcast_parameters,
)
from .mpi_ops import *  # noqa: F403
from .optimizer import DistributedOptimizer
from .sync_batch_norm import SyncBatchNorm

__all__ = [
    "CommHookState",
    "Compression",
    "DistributedOptimizer",
    "HostsUpdatedInterrupt",
    "SyncBatchNorm",
    "allgather_object",
    "broadcast_object",
    "broadcast_object_fn",
    "broadcast_optimizer_state",
    "broadcast_parameters",
    "comm_hook",
    "elastic",
    *mpi_ops.__all__,
]

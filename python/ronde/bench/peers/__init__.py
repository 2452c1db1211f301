"""The libraries that can be measured: one file each."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager

from .peer import Peer

__all__ = ["KINDS", "connect"]

KINDS = ("ronde", "mpi", "gloo", "horovod", "deepspeed", "nccl", "ronde_cuda")


def connect(kind: str) -> AbstractContextManager[Peer]:
    """Starts the library on all ranks, until the end of the context."""
    module = importlib.import_module(f".{kind}", __name__)
    connected: AbstractContextManager[Peer] = module.connect()
    return connected

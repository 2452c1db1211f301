"""How the processes of a job find each other: Ronde knows them.

torch needs a store, rank and size. Rank 0 opens a `TCPStore` at MASTER_ADDR and MASTER_PORT as far as
they are given, else at a free port, and says where by a broadcast.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlparse

from torch.distributed import TCPStore, register_rendezvous_handler

import ronde

__all__ = ["register", "require_ranks_of_job"]

_TIMEOUT = timedelta(minutes=30)
Found = tuple[TCPStore, int, int]


def register() -> None:
    """The address "ronde://", and "env://", the default, where the environment does not say all."""
    # (torch.distributed.rendezvous is a function there.)
    handlers = import_module("torch.distributed.rendezvous")._rendezvous_handlers
    if "ronde" in handlers:
        return
    register_rendezvous_handler("ronde", _find)
    by_environment = handlers["env"]

    def find(url: str, timeout: timedelta = _TIMEOUT, **options: Any) -> Iterator[Any]:
        needed = {"MASTER_ADDR", "MASTER_PORT"} | (
            {"RANK", "WORLD_SIZE"} if "?" not in url else set()
        )
        if needed <= os.environ.keys():
            return by_environment(url, timeout=timeout, **options)  # type: ignore[no-any-return]
        return _find(url, timeout)

    handlers["env"] = find


def require_ranks_of_job(rank: int, size: int) -> None:
    """Raises `RuntimeError` if they are not those of Ronde; -1 stands for any."""
    if rank in (-1, ronde.rank()) and size in (-1, ronde.size()):
        return
    raise RuntimeError(
        f"torch was told that this is rank {rank} of {size}, but for MPI it is rank {ronde.rank()} of "
        f"{ronde.size()}; start the program with `ronde run -np {max(size, 1)} python train.py` or with "
        'mpirun, and give no rank and no world_size: init_process_group("ronde") asks Ronde for them. '
        "Ranks of another job need MASTER_ADDR, MASTER_PORT and another backend"
    )


def _find(url: str, timeout: timedelta = _TIMEOUT, **_: Any) -> Iterator[Found]:
    """Yields what a rendezvous of torch does: store, rank and size."""
    ronde.init()
    given = dict(parse_qsl(urlparse(url).query))
    require_ranks_of_job(int(given.get("rank", -1)), int(given.get("world_size", -1)))
    store = None
    address: tuple[str, int] | None = None
    if ronde.rank() == 0:
        one_machine = ronde.local_size() == ronde.size()
        own = "127.0.0.1" if one_machine else socket.gethostname()
        host = os.environ.get("MASTER_ADDR") or own
        port = int(os.environ.get("MASTER_PORT") or 0)
        store = TCPStore(host, port, ronde.size(), True, timeout, wait_for_workers=False)
        address = host, store.port
    host, port = ronde.broadcast_object(address, name="the store of torch.distributed")
    if store is None:
        store = TCPStore(host, port, ronde.size(), False, timeout, wait_for_workers=False)
    yield store, ronde.rank(), ronde.size()
    raise RuntimeError("a job of MPI has its ranks for ever: rendezvous anew is not possible")

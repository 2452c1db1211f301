"""Ranks that torchrun has started: MPI learns who they are.

MPICH and Intel MPI can be told by a server (_pmi.py), which rank 0 starts. Where it is goes through the store
of torch. Other MPIs know only ranks of their own launcher.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import _pmi
from .errors import RondeError

__all__ = ["meeting", "started"]

_PATIENCE = 30.0  # seconds until rank 0 answers
_OURS = ("PMI_PORT", "PMI_ID")


def started() -> int:
    """How many ranks torchrun has started; 0 if this is none of them."""
    size = os.environ.get("WORLD_SIZE", "")
    return int(size) if "TORCHELASTIC_RUN_ID" in os.environ and size.isdigit() else 0


@contextmanager
def meeting() -> Iterator[None]:
    """MPI may be started: it finds in the environment where to ask."""
    if started() < 2:
        yield
        return
    # torchrun itself may have been started by a launcher of MPI, on each machine.
    for name in [each for each in os.environ if each.startswith(("PMI_", "PMIX_"))]:
        del os.environ[name]
    os.environ |= dict(zip(_OURS, _place(), strict=True))
    try:
        yield
    finally:  # it is not for programs that this one starts
        for name in _OURS:
            os.environ.pop(name, None)


def _place() -> tuple[str, str]:
    """The address of the server, and the number of this process there."""
    from torch.distributed import rendezvous

    store, rank, size = next(rendezvous("env://"))
    key = f"ronde/{size} ranks/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    if rank == 0:
        store.set(key, _start(size))
    address: str = store.get(key).decode()
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise RondeError(
            f"this rank cannot reach rank 0 at {address}, where ranks that torchrun has started find each "
            f"other: {error}"
        ) from None
    return address, str(rank)


def _start(size: int) -> str:
    """Starts the server, and returns its address."""
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(size)
    host = "127.0.0.1" if one_machine else _own_address()
    here, there = os.pipe()
    result = subprocess.run(
        [sys.executable, "-I", _pmi.__file__, str(size), host],
        stdin=here,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    os.close(here)
    _open.append(there)
    return f"{host}:{result.stdout.strip()}"


_open: list[int] = []  # until this process ends


def _own_address() -> str:
    """By which other machines reach this one: that of the connection to the store."""
    at: Any = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    with socket.create_connection(at) as connection:
        address: str = connection.getsockname()[0]
        return address

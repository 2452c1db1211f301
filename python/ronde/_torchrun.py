"""Ranks that torchrun has started: MPI learns who they are.

MPICH and Intel MPI can be told by a server (_pmi.py), which rank 0 starts. Where it is goes through the store
of torch. Other MPIs know only ranks of their own launcher.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from . import _pmi
from .errors import RondeError

__all__ = ["meeting", "met", "started"]

_KEY = "ronde/where rank 0 is"
_MET = "_RONDE_HAS_MET"  # in the environment: programs that a rank starts are no ranks of torchrun
_OF_LAUNCHERS = "PMI_", "PMIX_"  # begin the variables by which MPI finds one
_PAUSE = 0.1  # seconds, until a rank looks again where rank 0 is
_ANSWERS_IN = 5.0  # seconds

_met = 0
_until_the_end: list[
    Any
] = []  # of this process: then the server ends as well, and torch's store may


def started() -> int:
    """How many ranks torchrun has started; 0 if this is none of them."""
    size = os.environ.get("WORLD_SIZE", "")
    is_rank = "TORCHELASTIC_RUN_ID" in os.environ and _MET not in os.environ
    return int(size) if is_rank and size.isdigit() else 0


def met() -> int:
    """How many ranks have told MPI who they are; 0 if they have not, or there are none of torchrun."""
    return _met


@contextmanager
def meeting() -> Iterator[None]:
    """MPI may be started: it finds in the environment where to ask."""
    global _met
    if (size := started()) < 2:
        yield
        return
    # torchrun itself may have been started by a launcher of MPI, on each machine.
    found = [name for name in os.environ if name.startswith(_OF_LAUNCHERS)]
    others = {name: os.environ.pop(name) for name in found}
    address, rank = _place()
    os.environ |= {"PMI_PORT": address, "PMI_ID": rank, _MET: "1"}
    _met = size
    try:
        yield
    finally:
        del os.environ["PMI_PORT"], os.environ["PMI_ID"]
        os.environ |= others


def _place() -> tuple[str, str]:
    """The address of the server, and the number of this process there."""
    from torch.distributed import rendezvous

    store, rank, size = next(rendezvous("env://"))
    _until_the_end.append(store)
    if rank == 0:
        store.set(_KEY, _start(size))
    # After a failure torchrun starts new ranks over the same store, which still says where rank 0 was.
    while (address := _answering(store.get(_KEY).decode(), size)) is None:
        time.sleep(_PAUSE)
    return address, str(rank)


def _start(size: int) -> str:
    """Starts the server. Returns the addresses that it may have for others."""
    here, there = os.pipe()
    _until_the_end.append(there)
    on_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(size)
    command = [
        sys.executable,
        "-I",
        _pmi.__file__,
        str(size),
        "127.0.0.1" if on_one_machine else "",
    ]
    try:
        port = subprocess.run(
            command, stdin=here, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "") or error
        raise RondeError(
            f"the server by which the ranks of torchrun find each other: {why}"
        ) from None
    finally:
        os.close(here)
    hosts = ["127.0.0.1"] if on_one_machine else _hosts()
    return " ".join(f"{host}:{port.strip()}" for host in hosts)


def _hosts() -> list[str]:
    """By which other machines may reach this one. Its own name may be that of a loopback here, and torch's
    store may be on another."""
    store = os.environ["MASTER_ADDR"]
    found = [store, socket.gethostname()]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to_store:
        to_store.connect((store, 1))  # sends nothing
        found.insert(0, to_store.getsockname()[0])
    return list(dict.fromkeys(host for host in found if ":" not in host))  # MPI takes IPv4 only


def _answering(addresses: str, size: int) -> str | None:
    """That of them where the server of this job is."""
    for address in addresses.split():
        host, port = address.split(":")
        with suppress(OSError), socket.create_connection((host, int(port)), _ANSWERS_IN) as server:
            server.sendall(b"cmd=get_universe_size\n")
            with server.makefile() as answer:
                if answer.readline() == f"cmd=universe_size rc=0 size={size}\n":
                    return address
    return None

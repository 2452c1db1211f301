"""A timeline of all ranks: its beginning, its end, and how the files of the ranks become one."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import _core, _files
from .errors import RondeError
from .process_set import global_process_set

if TYPE_CHECKING:
    from .context import World

__all__ = ["join", "joined", "start", "stop"]

_ROUND_TRIPS = 10


def start(world: World, file: str) -> None:
    communicator = global_process_set._member()
    communicator.barrier(call=_core.Call("start_timeline", detail=f"file {file}"))
    if world.timeline is not None:
        raise RondeError(
            f"a timeline is under way, in {world.timeline}: call ronde.stop_timeline()"
        )
    offset = _offset(communicator, [home.host for home in world.homes])
    rank, host = communicator.rank, world.homes[communicator.rank].host.split()[0]
    part, failure = _files.of_rank(os.path.abspath(file), rank), ""
    try:
        world.record.timeline.start(str(part), rank, host, offset)
    except RondeError as error:
        failure = str(error)
    if _all(communicator, not failure):
        world.timeline = os.path.abspath(file)
        return
    if not failure:
        world.record.timeline.stop()
        part.unlink()
    raise RondeError(failure or "another rank cannot write its file of the timeline")


def stop(world: World, *, agreed: bool = False) -> None:
    """`agreed`: all ranks are known to do it."""
    communicator = global_process_set._member()
    if not agreed:
        communicator.barrier(call=_core.Call("stop_timeline"))
    if world.timeline is None:
        raise RondeError("no timeline is under way: ronde.start_timeline begins one")
    file, world.timeline = world.timeline, None
    part, failure, text = _files.of_rank(file, communicator.rank), "", b""
    try:
        world.record.timeline.stop()
        text = part.read_bytes()
    except (RondeError, OSError) as error:
        failure = str(error)
    parts = communicator.gather(np.frombuffer(text, np.uint8), 0)
    # Not before all parts are known to be whole.
    whole = _all(communicator, not failure)
    if whole and parts is not None:
        data, lengths = parts
        ends = np.cumsum(lengths)
        texts = (
            data[end - length : end].tobytes().decode()
            for length, end in zip(lengths, ends, strict=True)
        )
        try:
            _files.replace(Path(file), joined(texts))
        except OSError as error:
            failure = f"{file}: {error.strerror}"
    if _all(communicator, not failure):
        part.unlink()
        return
    failure = failure or "another rank could not write its part"
    raise RondeError(f"the timeline was not joined, and its parts are kept: {failure}")


def _all(communicator: _core.Communicator, mine: bool) -> bool:
    """Whether it is so on all ranks."""
    votes = communicator.allreduce(np.array([mine], np.uint8), None, _core.Op.Min)
    return bool(votes[0])


def _offset(communicator: _core.Communicator, hosts: list[str]) -> int:
    """What this machine's clock has to be set forward by to show the time of rank 0's, in nanoseconds.

    In each round trip rank 0 broadcasts, the others note the time, and all send it back. So each noted it
    between the beginning and the end of the round trip, which bounds the difference of the clocks.
    """
    if len(set(hosts)) == 1:
        return 0
    call = _core.Call("start_timeline")
    highest, lowest = dict.fromkeys(hosts, 2**62), dict.fromkeys(hosts, -(2**62))
    for _ in range(_ROUND_TRIPS):
        began = time.monotonic_ns()
        communicator.broadcast(np.zeros(1, np.uint8), 0, call=call)
        mine = np.array([time.monotonic_ns()], np.int64)
        noted, _ = communicator.allgather(mine, call=call)
        ended = time.monotonic_ns()
        for host, there in zip(hosts, noted.tolist(), strict=True):
            highest[host] = min(highest[host], ended - there)
            lowest[host] = max(lowest[host], began - there)
    middle = np.array([(highest[host] + lowest[host]) // 2 for host in hosts], np.int64)
    communicator.broadcast(middle, 0, call=call)
    here = hosts[communicator.rank]
    return 0 if here == hosts[0] else int(middle[communicator.rank])


def joined(parts: Iterable[str]) -> str:
    """The events of several files, each of which is an array in JSON."""
    bodies = (part.strip().removeprefix("[").removesuffix("]").strip() for part in parts)
    return "[\n" + ",\n".join(filter(None, bodies)) + "\n]\n"


def join(file: str) -> list[int]:
    """Joins the parts of a timeline whose job has died, and returns their ranks. The parts stay.

    Raises `ValueError` if there are none.
    """
    path = Path(file).absolute()
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent}")
    parts = _files.of_ranks(str(path))
    if not parts:
        raise ValueError(f"there are no parts of {file}, like {_files.of_rank(file, 0).name}")
    texts = (",\n".join(_events(part.read_text(errors="replace"))) for part in parts.values())
    _files.replace(path, joined(texts))
    return list(parts)


def _events(text: str) -> Iterator[str]:
    """Those that are whole. (A machine that lost its power may have lost the end of a file.)"""
    for line in text.splitlines():
        event = line.removesuffix(",")
        with contextlib.suppress(ValueError):
            if isinstance(json.loads(event), dict):
                yield event

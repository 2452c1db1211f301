"""A timeline of all ranks: its beginning, its end, and how the files of the ranks become one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from . import _core, _files
from .errors import RondeError
from .process_set import global_process_set

if TYPE_CHECKING:
    from .context import World

__all__ = ["join", "start", "stop"]

T = TypeVar("T")

_log = logging.getLogger("ronde")
_ROUND_TRIPS = 10
_BEGINNING, _END = b"[\n", b"\n]\n"  # of a file
_MOST = 1 << 30  # bytes of all parts that are gathered on rank 0


class _FailedError(Exception):
    """On this rank or another, and so on all."""


def start(world: World, file: str) -> None:
    communicator = global_process_set._member()
    communicator.barrier(call=_core.Call("start_timeline", detail=f"file {file}"))
    if world.timeline is not None:
        raise RondeError(
            f"a timeline is under way, in {world.timeline}: call ronde.stop_timeline()"
        )
    offset = _offset(communicator, [home.host for home in world.homes])
    rank, host = communicator.rank, world.homes[communicator.rank].host.split()[0]
    part, timeline = _files.of_rank(os.path.abspath(file), rank), world.record.timeline
    try:
        _on_all(communicator, lambda: timeline.start(str(part), rank, host, offset))
    except _FailedError as error:
        if timeline.on:
            timeline.stop()
            part.unlink(missing_ok=True)
        raise RondeError(str(error)) from None
    world.timeline = os.path.abspath(file)


def stop(world: World, *, agreed: bool = False) -> None:
    """`agreed`: all ranks are known to do it."""
    communicator = global_process_set._member()
    if not agreed:
        communicator.barrier(call=_core.Call("stop_timeline"))
    if world.timeline is None:
        raise RondeError("no timeline is under way: ronde.start_timeline begins one")
    file, world.timeline = world.timeline, None
    part, timeline = _files.of_rank(file, communicator.rank), world.record.timeline

    def complete() -> int:
        timeline.stop()
        return part.stat().st_size

    def write() -> None:
        if gathered is not None:
            _files.replace(Path(file), _joined(_bodies(*gathered)))

    try:
        size = _on_all(communicator, complete)
        total = int(communicator.allreduce(np.array([size]), None, _core.Op.Sum)[0])
        if total > _MOST:
            if communicator.rank == 0:
                _log.warning(
                    "the timeline has %.1f GiB, too much to be gathered, and its parts are kept: "
                    "`ronde timeline merge %s` joins them, once all are in that folder",
                    total / 2**30,
                    file,
                )
            return
        text = _on_all(communicator, part.read_bytes)
        gathered = communicator.gather(np.frombuffer(text, np.uint8), 0)
        _on_all(communicator, write)
    except _FailedError as error:
        raise RondeError(f"the timeline was not joined, and its parts are kept: {error}") from None
    with contextlib.suppress(OSError):
        part.unlink()


def _on_all(communicator: _core.Communicator, work: Callable[[], T]) -> T:
    """What it returns on this rank. Raises `_FailedError` on all ranks where it fails on any."""
    failure = ""
    try:
        result = work()
    except Exception as error:  # of any kind: the others wait for this rank's vote
        failure = str(error) or type(error).__name__
    votes = communicator.allreduce(np.array([not failure], np.uint8), None, _core.Op.Min)
    if not votes[0]:
        raise _FailedError(failure or "another rank could not write its part of the timeline")
    return result


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


def _bodies(data: np.ndarray, lengths: list[int]) -> Iterator[memoryview]:
    """The events of each of several files, which lie one behind the other."""
    end = 0
    for length in lengths:
        begin, end = end, end + length
        yield data.data[begin + len(_BEGINNING) : end - len(_END)]


def _joined(events: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """An array in JSON, in pieces."""
    yield b"["
    between = b"\n"
    for each in events:
        yield between
        yield each
        between = b",\n"
    yield _END


def join(file: str) -> list[int]:
    """Joins the parts of a timeline whose job has died, and returns their ranks. The parts stay.

    Raises `ValueError` if there are none, and `RondeError` if a file cannot be read or written.
    """
    path = Path(file).absolute()
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent}")
    parts = _files.of_ranks(str(path))
    if not parts:
        raise ValueError(f"there are no parts of {file}, like {_files.of_rank(file, 0).name}")
    try:
        _files.replace(path, _joined(event for part in parts.values() for event in _events(part)))
    except OSError as error:
        raise RondeError(f"the timeline cannot be joined: {error}") from None
    return list(parts)


def _events(part: Path) -> Iterator[bytes]:
    """Those that are whole. (Of a rank that was killed, or a machine that lost its power, the end may be
    missing.)"""
    with part.open("rb") as lines:
        for line in lines:
            event = line.strip().removesuffix(b",")
            with contextlib.suppress(ValueError):
                if isinstance(json.loads(event), dict):
                    yield event

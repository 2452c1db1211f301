"""Ranks as threads of this process: the whole core without a launcher."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ronde
from ronde import _core

WORLDS = (1, 2, 3, 4, 7, 8)


@dataclass
class Rank:
    """What one thread works with."""

    rank: int
    size: int
    control: _core.Control
    communicator: _core.Communicator
    settings: _core.Settings
    warnings: list[str]
    handlers: list[Callable[[str], Any]]  # of warnings
    sets: dict[int, _core.InprocWorld]

    def subset(self, number: int, members: list[int]) -> _core.Communicator:
        """A communicator of some ranks, on a world of its own that `sets` holds."""
        transport = self.sets[number].transport(members.index(self.rank), 0)
        return _core.Communicator(self.control, transport, number, members, self.settings)


def settings(**changes: Any) -> _core.Settings:
    result = _core.Settings()
    result.spin = False
    result.stall_warning, result.stall_timeout = 20.0, 30.0
    for name, value in changes.items():
        setattr(result, name, value)
    return result


def run(
    size: int,
    program: Callable[[Rank], Any],
    *,
    sets: dict[int, int] | None = None,
    shared: bool = False,
    machines: list[int] | None = None,
    faults: dict[str, Any] | None = None,
    slow_where: float = 0.0,
    **changes: Any,
) -> list[Any]:
    """Runs `program` on `size` ranks; returns what each returned or raised.

    `sets`: sizes of further worlds, for process sets. `shared`: the ranks share memory, all of them or
    those with the same number in `machines`.
    `slow_where`: seconds that a rank needs to find its place in the program. `changes`: settings.
    """
    world = _core.InprocWorld(size, **(faults or {}))
    further = {number: _core.InprocWorld(members) for number, members in (sets or {}).items()}
    results: list[Any] = [None] * size

    def rank_main(rank: int) -> None:
        warnings: list[str] = []
        handlers: list[Callable[[str], Any]] = [warnings.append]

        def warn(text: str) -> None:
            for handler in handlers:
                handler(text)

        def where() -> str:
            time.sleep(slow_where)
            return f"rank{rank}.py:1"

        control = _core.Control(world.transport(rank, 0), where, warn)
        chosen = settings(**changes)
        communicator = _core.Communicator(
            control, world.transport(rank, 1), 0, list(range(size)), chosen
        )
        try:
            if shared or machines:
                assert communicator.share_memory(machines or [])
            results[rank] = program(
                Rank(rank, size, control, communicator, chosen, warnings, handlers, further)
            )
        except BaseException as error:
            results[rank] = error
            if not isinstance(error, ronde.RondeError):
                control.fail(f"the test failed: {error!r}")  # do not let the others wait
        kept.append((control, communicator))

    kept: list[Any] = []  # a rank must outlive the messages that others still take from it
    threads = [threading.Thread(target=rank_main, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a rank hangs"
    return results


def run_all(size: int, program: Callable[[Rank], Any], **options: Any) -> list[Any]:
    """As `run`, and every rank must succeed."""
    results = run(size, program, **options)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, ronde.RondeError)):
        raise error  # the cause, rather than what it did to others
    return results

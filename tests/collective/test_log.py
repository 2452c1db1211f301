"""RONDE_LOG=debug: how calls go, once for each kind of call, and nothing without it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ronde
from ronde import _core, settings
from threads import Rank, run_all
from threads import settings as threads_settings

ronde.init()


def lines(
    size: int,
    *,
    machines: list[int] | None = None,
    kinds: tuple[str, ...] = ("allreduce",),
    **changes: Any,
) -> list[str]:
    """Those of rank 0, of kinds of calls: a short and a long allreduce, twice each, and others once."""
    found: list[list[str]] = [[] for _ in range(size)]
    world = _core.InprocWorld(size)

    def program(me: Rank) -> None:
        control = _core.Control(world.transport(me.rank, 0), str, print, found[me.rank].append)
        communicator = _core.Communicator(
            control, world.transport(me.rank, 1), 0, list(range(size)), threads_settings(**changes)
        )
        communicator.set_link(_core.Link(20e-6, 5e-6, 8e-9, 2e-10))  # not by the clock
        if machines is not None:
            communicator.share_memory(machines)
        here: Any = SimpleNamespace(_communicator=communicator)
        for name in ("first", "second"):
            ronde.allreduce(np.ones(2), name=name, process_set=here)
            ronde.allreduce(np.ones(200_000), name=name, process_set=here)
        x = np.ones(20_000)
        communicator.broadcast(x, 0)
        communicator.alltoall(x, [x.size // size] * size)
        me.communicator.barrier("all have done")

    run_all(size, program)
    return [line for line in found[0] if line.startswith(kinds)]


@pytest.mark.parametrize(
    ("machines", "changes", "short", "long"),
    [
        ([0, 0], {}, "in shared memory, .*during the comparison", "in shared memory, .* stages"),
        (
            None,
            {},
            "over the network, piggybacked on the comparison",
            "the cheapest by the link, measured as 20 us and 125 MB/s",
        ),
        (
            None,
            {"algorithm": {"allreduce": "ring"}},
            "by ring in 2 steps .*as RONDE_ALGORITHM says",
            "by ring in 2 steps .*as RONDE_ALGORITHM says",
        ),
        (None, {"deterministic": True}, "RONDE_DETERMINISTIC=1", "RONDE_DETERMINISTIC=1"),
    ],
    ids=["memory", "network", "named", "deterministic"],
)
def test_a_line_for_each_kind_says_the_route_and_why(
    machines: list[int] | None, changes: dict[str, Any], short: str, long: str
) -> None:
    found = lines(2, machines=machines, **changes)
    assert len(found) == 2
    for line, shape, words in zip(found, (r"\(2,\)", r"\(200000,\)"), (short, long), strict=True):
        assert re.search(f"{shape}, op=average.: .*{words}", line), line


def test_the_deterministic_mode_is_no_reason_where_nothing_is_reduced() -> None:
    broadcast, *_, alltoall = lines(2, kinds=("broadcast", "alltoall"), deterministic=True)
    assert "by tree in 1 steps" in broadcast and "; the cheapest by the link" in broadcast
    assert "by direct in 1 steps" in alltoall and "; the first, as the ranks have" in alltoall


PROGRAM = """
import numpy as np, ronde
ronde.init()
for _ in range(2):
    ronde.grouped_allreduce([np.ones((2, 2)), np.ones(2, int)], ronde.Sum, "g", compression="int8")
"""


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("", []),
        ("info", ["info: version"]),
        (
            "Debug",
            [
                "info: version",
                r"debug: grouped_allreduce g\[0\] \(float64, shape \(2, 2\)\): by .*int8\(\), in float32$",
                r"debug: grouped_allreduce g\[1\] \(int64, shape \(2,\)\): exactly$",
            ],
        ),
    ],
)
def test_the_variable_sends_lines_with_the_rank_to_standard_error(
    level: str, said: list[str]
) -> None:
    environment = {**os.environ, "RONDE_LOG": level}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=60
    )
    assert result.returncode == 0, result.stderr
    found = result.stderr.splitlines()
    assert len(found) == len(said), found
    for line, words in zip(found, said, strict=True):
        assert re.match(rf"ronde \[rank 0\] {words}", line), line


def test_a_level_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="RONDE_LOG='loud' is not debug, info"):
        settings.load({"RONDE_LOG": "loud"})

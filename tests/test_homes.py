"""Who is where, and whether there is a core for every rank."""

from __future__ import annotations

import pytest
from ronde import _homes
from ronde._homes import Home

BOTH = [0, 1]


def test_ranks_are_counted_by_host_in_order_of_appearance() -> None:
    homes = [Home(host, BOTH, None) for host in ("b 7", "a 7", "b 7", "b 8")]
    assert _homes.count_neighbours(homes) == [(0, 0), (1, 0), (0, 1), (2, 0)]


@pytest.mark.parametrize(
    ("homes", "enough"),
    [
        ([Home("a 7", BOTH, None)] * 2, True),
        ([Home("a 7", BOTH, None)] * 3, False),
        # Bound by the launcher: each to its own core, or both to one.
        ([Home("a 7", [0], None), Home("a 7", [1], None)], True),
        ([Home("a 7", [0], None), Home("a 7", [0], None)], False),
        # The time of one core for both.
        ([Home("a 7", BOTH, 1)] * 2, False),
        # Two machines, then two containers of one machine.
        ([Home("a 7", BOTH, None)] * 2 + [Home("b 8", BOTH, None)] * 2, True),
        ([Home("a 7", BOTH, None)] * 2 + [Home("b 7", BOTH, None)] * 2, False),
        # A host that does not say which machine it is counts as one of its own.
        ([Home("a ", BOTH, None)] * 2 + [Home("b ", BOTH, None)] * 2, True),
    ],
)
def test_a_core_for_every_rank_of_the_machine(homes: list[Home], enough: bool) -> None:
    assert all(_homes.has_a_core_of_its_own(home, homes) == enough for home in homes)

"""What docs/algorithms.md says is what the schedules do."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import pytest
from formulas import core, folded, levels
from ronde import _core
from worlds import ALGORITHMS, counts_of, even, sizes_of

ROOT = Path(__file__).parents[2]
ALGORITHMS_PAGE = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
FORMULAS = ["steps", "sent", "received", "reduced", "roundings"]
COLUMNS = ["collective", "algorithm", *FORMULAS, "position", "ranks"]


def table() -> dict[tuple[str, str], dict[str, str]]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in ALGORITHMS_PAGE.splitlines()
        if line.startswith("|") and not line.startswith("|-")
    ]
    assert rows[0] == COLUMNS
    return {(row[0], row[1]): dict(zip(COLUMNS, row, strict=True)) for row in rows[1:]}


def value(formula: str, size: int) -> Fraction:
    """Evaluates "2(P-1)/P", where a number before a letter or bracket multiplies it."""
    assert re.fullmatch(r"[\dPQLlF()+\-/]+", formula)
    names = {
        "P": Fraction(size),
        "Q": Fraction(core(size)),
        "L": Fraction(levels(size)),
        "l": Fraction(int(math.log2(core(size)))),
        "F": Fraction(folded(size)),
    }
    return Fraction(eval(re.sub(r"(\d)(?=[A-Za-z(])", r"\1*", formula), {}, names))


def test_the_table_has_a_row_for_each_algorithm() -> None:
    assert list(table()) == [(row[0], row[1]) for row in ALGORITHMS]


@pytest.mark.parametrize("row", ALGORITHMS, ids=[f"{row[1]}_{row[0]}" for row in ALGORITHMS])
def test_a_row_of_the_table_tells_the_truth(row: tuple[str, str, bool, bool]) -> None:
    collective, name, position_independent, any_size = row
    said = table()[collective, name]
    assert said["position"] == ("free" if position_independent else "bound")
    assert said["ranks"] == ("any" if any_size else "powers of two")
    for size in sizes_of(any_size):
        if size == 1:
            continue
        total = size * core(size)
        cost = _core.cost(collective, name, counts_of(collective, total, size))
        assert value(said["steps"], size) == cost.steps, f"{size} ranks"
        for column in ("sent", "received", "reduced"):
            assert value(said[column], size) * total == getattr(cost, column), f"{size} ranks"
        depth = _core.simulate(collective, name, counts_of(collective, size, size)).depth
        assert value(said["roundings"], size) == depth, f"{size} ranks"


def test_sums_of_a_tree_are_rounded_less_often_than_those_of_a_ring() -> None:
    depth = {
        name: _core.simulate("allreduce", name, even(64, 64)).depth
        for name in ("ring", "circulant", "halving_doubling")
    }
    assert depth == {"ring": 63, "circulant": 6, "halving_doubling": 6}

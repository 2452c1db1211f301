"""Rows as tables and charts."""

from __future__ import annotations

from pathlib import Path

import pytest
from ronde.bench import chart, table
from ronde.bench.cells import Cell, Row


def row(
    time: float, peer: str = "ronde", number: int = 0, *, size: int = 4096, buffers: str = "plain"
) -> Row:
    cell = Cell("allreduce", size, buffers=buffers)
    return Row(
        cell, size, size // 4, 2, 10, time, time, 2 * time, 3 * time, 0, None, "", peer, number
    )


ROWS = [
    *(row(time, "ronde", number) for number, time in enumerate((10.0, 20.0, 10.0))),
    *(row(time, "mpi", number) for number, time in enumerate((30.0, 30.0, 50.0))),
    *(row(5.0, "ronde", number, buffers="shared") for number in range(3)),
]


def test_ratios_are_taken_within_a_round() -> None:
    assert table.ratios(ROWS, "mpi", "ronde") == [3.0, 1.5, 5.0]
    assert table.ratios(ROWS, "mpi", "ronde shared") == [6.0, 6.0, 10.0]
    assert table.ratios(ROWS[:4], "mpi", "ronde") == [3.0]  # of rounds that both have
    assert table.ratios(ROWS, "gloo", "ronde") == []


def test_a_comparison_has_a_line_for_each_library() -> None:
    lines = list(table.comparison(ROWS, bound=False))
    assert [line.split(" | ")[0].split()[5] for line in lines[-3:]] == ["ronde", "mpi", "ronde"]
    mpi = lines[-2].split(" | ")
    assert mpi[1].split()[0] == "30.00"  # the median round
    assert mpi[-2].split() == ["1.50", "3.00", "5.00"]
    assert mpi[-1].split() == ["6.00", "6.00", "10.00"]
    assert "time / ronde" in lines[2]


def test_columns_stand_below_their_names() -> None:
    names, units = table.header(bound=True)
    line = table.line(row(12345.6), bound=True)
    bars = [index for index, character in enumerate(names) if character == "|"]
    for text in (units, line):
        assert [index for index, character in enumerate(text) if character == "|"] == bars
    assert line.split("|")[1].split()[0] == "12346"


def test_what_was_not_measured_says_why() -> None:
    refused = Row(Cell("allreduce", 8, "bfloat16"), 8, 4, 2, why_not="MPI does not reduce bfloat16")
    assert table.line(refused, bound=False).endswith("| MPI does not reduce bfloat16")


def test_the_share_of_the_bound() -> None:
    cell = Cell("allreduce", 1 << 20)
    line = table.line(Row(cell, 1 << 20, 1 << 18, 2, 5, 200.0, bound=50.0), bound=True)
    assert line.split()[-1] == "0.25"


def test_a_chart_is_drawn_in_the_format_of_its_name(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib")
    rows = [
        row(time * size / 1024, peer, size=size)
        for size in (8, 1024, 1 << 20)
        for peer, time in (("ronde", 1.0), ("mpi", 2.0))
    ]
    for name in ("chart.png", "chart.svg"):
        chart.draw(rows, str(tmp_path / name), "a machine")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "chart.svg").read_text()
    assert "<svg" in svg
    with pytest.raises(ValueError, match="nothing to draw"):
        chart.draw([], str(tmp_path / "empty.png"))

"""Rows as tables and charts, and why there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ronde.bench import chart, rounds, table
from ronde.bench.cells import Cell, Row
from ronde.bench.codecs import CodecRow


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
    assert [line.split(" | ")[0].split()[4] for line in lines[-3:]] == ["ronde", "mpi", "ronde"]
    mpi = lines[-2].split(" | ")
    assert mpi[1].split()[0] == "30.00"  # the median round
    assert mpi[-2].split() == ["1.50", "3.00", "5.00"]
    assert mpi[-1].split() == ["6.00", "6.00", "10.0"]
    assert "time / ronde" in lines[2]


def test_columns_stand_below_their_names() -> None:
    names, units = table.header(bound=True)
    line = table.line(row(12345.6), bound=True)
    bars = [index for index, character in enumerate(names) if character == "|"]
    for text in (units, line):
        assert [index for index, character in enumerate(text) if character == "|"] == bars
    assert line.split("|")[1].split()[0] == "12346"


def test_a_table_fits_100_columns() -> None:
    wide = Row(Cell("broadcast", 1 << 30, "bfloat16", root=3), 1 << 30, 1 << 29, 8, 5, 99999.0)
    allreduce = Row(
        Cell("allreduce", 1 << 30, "bfloat16", "product"), 1 << 30, 1 << 29, 8, 5, 99999.0
    )
    ours = [row for row in ROWS if row.label != "ronde shared"]
    lines = [table.line(wide, bound=False), table.line(allreduce, bound=True)]
    lines += [*table.header(bound=True), *table.header(bound=False, rooted=True)]
    lines += [*table.comparison(ours, bound=True), *table.compressed_header(10)]
    lines += table.codec_header(["threshold(2.5)"])
    assert max(map(len, lines)) <= 100


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


# ---- compression ---------------------------------------------------------------------------------


def compressed(compression: str, *times: float, wire: float = 0.0) -> list[Row]:
    cell = Cell("allreduce", 4096, in_place=False, compression=compression)
    return [
        Row(cell, 4096, 1024, 2, time=time, wire=wire, error=0.25, round=number)
        for number, time in enumerate(times)
    ]


TURNS = [
    *compressed("none", 10.0, 20.0, 12.0, wire=4096),
    *compressed("bf16", 5.0, 5.0, 5.0, wire=2048),
    *compressed("int4", 2.0, 10.0, 4.0, wire=512),
]


def test_compression_is_compared_round_by_round() -> None:
    lines = [line.split(" | ") for line in table.compressed(TURNS, 8)]
    assert [line[0].split() for line in lines] == [
        ["4096", name] for name in ("none", "bf16", "int4")
    ]
    none, bf16, int4 = lines
    assert int4[1].split() == ["4.00", "1.02"]  # the median round
    assert int4[2].split() == ["512", "8.0", "0.25"]
    assert int4[3].split() == ["2.00", "3.00", "5.00"]
    assert int4[4].split() == ["0.50", "1.25", "2.50"]
    assert none[3].split() == bf16[4].split() == ["1.00"] * 3


def test_without_a_wire_there_are_no_bytes() -> None:
    lines = table.compressed([*compressed("none", 1.0), *compressed("bf16", 2.0)], 8)
    assert [line.split(" | ")[2].split()[:2] for line in lines] == [["-", "-"]] * 2


def test_what_cannot_be_compressed_says_why() -> None:
    cell = Cell("allreduce", 8, "int8", compression="bf16")
    rows = [
        Row(replace(cell, compression="none"), 8, 8, 2, time=1.0),
        Row(cell, 8, 8, 2, why_not="no"),
    ]
    exact, refused = table.compressed(rows, 8)
    assert refused.endswith("| no")
    assert exact.split(" | ")[4].split() == ["-"]


def test_columns_of_compression_stand_below_their_names() -> None:
    lines = [*table.compressed_header(8), *table.compressed(TURNS, 8)]
    times = {name: [0.5, 0.25] for name in ("pass", "encode", "feedback", "touch", "decode", "add")}
    row = CodecRow("topk(0.001)", 10**9, 2, 10**7, False, 0.99, -0.98, 0.0, times)
    codecs = [*table.codec_header([row.compressor]), table.codec_line(row, [row.compressor], 0.125)]
    for block in (lines, codecs):
        bars = [[i for i, each in enumerate(line) if each == "|"] for line in block]
        assert all(each == bars[0] for each in bars)


def test_the_trade_off_is_drawn_with_every_name(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib")
    points = [
        chart.Point(f"name{i}", 1 + i % 5 / 100, 0.9, i % 2 == 0) for i in range(30)
    ]  # a crowd
    chart.trade_off(points, 0.1, str(tmp_path / "chart.svg"), "a link", "a machine")
    svg = (tmp_path / "chart.svg").read_text()
    assert [f"name{i}" for i in range(30) if f"<!-- name{i} -->" not in svg] == []
    chart.trade_off(points[:1], 0.1, str(tmp_path / "chart.png"), "a link")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_the_reason_of_a_launcher_is_a_sentence() -> None:
    rule = "-" * 74
    log = (
        f"{rule}\nThe PMIx server's listener thread failed to start. We cannot\ncontinue.\n{rule}\n"
    )
    said = "The PMIx server's listener thread failed to start. We cannot continue."
    assert rounds._reason(log, [1]) == said
    assert rounds._reason(f"{log}x.SomeError: no\n{log}", [1]) == "x.SomeError: no"
    assert rounds._reason("", [0, 3]) == "it ended with status 3 before the job was done"

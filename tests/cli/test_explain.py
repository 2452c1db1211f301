"""`ronde explain`, called as the command line calls it."""

from __future__ import annotations

import argparse

import pytest
from ronde import _core
from ronde.cli import explain


def explained(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="ronde")
    explain.add_parser(parser.add_subparsers(required=True))
    return explain.run(parser.parse_args(["explain", *words]))


def output(capsys: pytest.CaptureFixture[str], words: str) -> list[str]:
    assert explained(*words.split()) == 0
    return capsys.readouterr().out.splitlines()


def rows(lines: list[str]) -> list[list[str]]:
    names = {row[1] for row in _core.algorithms()}
    return [line.split() for line in lines if line and line.split()[0] in names]


def test_small_vectors_want_few_steps_and_large_ones_few_bytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = output(capsys, "allreduce --bytes 8 --ranks 64 --overhead 20us")
    large = output(capsys, "allreduce --bytes 1G --ranks 64 --overhead 20us")
    assert rows(small)[0][0] == "recursive_doubling"
    assert rows(large)[0][0] in ("halving_doubling", "circulant", "ring")
    assert rows(large)[-1][0] == "one_shot"


def test_the_one_to_take_comes_first_and_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "allreduce --bytes 64M --ranks 16 --link 1Gbit")
    marked = [line for line in lines if line.endswith("<- chosen")]
    assert len(marked) == 1
    assert marked[0].split() == rows(lines)[0]
    counts = [(1 << 20)] * 16
    link = _core.default_link() | {"beta": 8e-9}
    seconds = {
        name: _core.cost(collective, name, counts, **link).seconds
        for collective, name, _, _ in _core.algorithms()
        if collective == "allreduce"
    }
    # The first of the table that is as good as the cheapest.
    least = min(seconds.values())
    assert marked[0].split()[0] == next(n for n, s in seconds.items() if s <= 1.02 * least)


def test_one_algorithm_is_shown_with_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "allreduce --bytes 64M --ranks 16 --algorithm ring --link 1Gbit")
    assert lines[0] == "allreduce on 16 ranks: 64 MiB of float32, the vector of each rank"
    assert "beta 8 ns/byte (1 Gbit/s)" in lines[2]
    assert rows(lines) == [["ring", "30", "30", "120", "MiB", "120", "MiB", "1.02", "s"]]


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        ("allreduce --bytes 4K --ranks 4", True),
        ("allreduce --bytes 4K --ranks 4 --link 100Mbit", False),
        ("allreduce --bytes 64M --ranks 4", False),
        ("allreduce --bytes 4K --ranks 1", False),
        ("allreduce --bytes 4K --ranks 4 --algorithm ring", False),  # which then is used
        ("broadcast --bytes 4K --ranks 4", False),
    ],
)
def test_what_is_piggybacked_on_phase_0_is_reported(
    words: str, reported: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any("(piggybacked)" in line for line in output(capsys, words)) == reported


@pytest.mark.parametrize("size", ["67108864", "64M", "64MB", "64MiB", "64 MiB", "0.0625g"])
@pytest.mark.parametrize("rate", ["10Gbit", "10Gbps", "10 Gbit/s", "10000mbit"])
def test_quantities_are_read_as_they_are_printed(
    size: str, rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--ranks", "4", "--bytes", size, "--link", rate, "--gamma", "0.2 ns/byte"]
    assert explained("reduce_scatter", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("reducescatter on 4 ranks: 64 MiB of float32")
    assert lines[2] == "beta 0.8 ns/byte (10 Gbit/s), gamma 0.2 ns/byte reduced"


def test_latency_is_read_with_its_unit(capsys: pytest.CaptureFixture[str]) -> None:
    words = "allreduce --bytes 0 --ranks 8 --algorithm recursive_doubling --alpha 2ms"
    lines = output(capsys, words)
    assert "alpha 2 ms a step" in lines[1]
    assert rows(lines)[0][-2:] == ["6", "ms"]


def test_what_needs_a_power_of_two_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "reducescatter --bytes 1K --ranks 6")
    assert lines[-1].split(maxsplit=1) == ["halving_doubling", "needs a power of two of ranks"]


@pytest.mark.parametrize("collective", explain.COLLECTIVES)
@pytest.mark.parametrize("ranks", [1, 2, 7, 16, 40])
def test_every_collective_can_be_explained_and_drawn(
    collective: str, ranks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [row[1] for row in _core.algorithms() if row[0] == collective]:
        if name == "halving_doubling" and ranks & (ranks - 1):
            continue
        words = f"{collective} --bytes 1M --ranks {ranks} --algorithm {name} --steps"
        assert output(capsys, words)[5].startswith(name)


def test_grid_names_chunks_and_peers_of_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "reducescatter --bytes 1K --ranks 3 --algorithm ring --steps")
    assert lines[-5:] == [
        "step  rank 0  rank 1  rank 2",
        "0     2>1     0>2     1>0",
        "      1<2+    2<0+    0<1+",
        "1     1>1     2>2     0>0",
        "      0<2+    1<0+    2<1+",
    ]


def test_a_grid_that_is_too_wide_continues_below(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "allreduce --bytes 1M --ranks 16 --algorithm ring --steps")
    assert max(map(len, lines)) <= 100
    heads = [line.split()[1:] for line in lines if line.startswith("step")]
    assert [word for head in heads for word in head if word != "rank"] == list(map(str, range(16)))


def test_grid_draws_folded_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "allreduce --bytes 1K --ranks 3 --algorithm halving_doubling --steps")
    assert "c>r sends chunk c of 2 to rank r, c<r receives it from rank r" in lines
    assert lines[-8:-6] == ["0             *>0", "      *<1+"]


def test_grid_of_many_ranks_becomes_the_list_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "broadcast --bytes 1K --ranks 17 --algorithm tree --root 5 --steps")
    assert "a grid of 17 ranks is too wide, this is rank 5" in "\n".join(lines)
    assert lines[-5:] == [
        "0     *>4",
        "1     *>13",
        "2     *>9",
        "3     *>7",
        "4     *>6",
    ]


@pytest.mark.parametrize(
    "words, complaint",
    [
        ("allreduce --bytes 10 --ranks 4", "10 bytes are not a whole number of float32"),
        ("allreduce --bytes 8 --ranks 4 --algorithm star", "no algorithm called 'star'; there are"),
        ("allgather --bytes 8 --ranks 6 --algorithm halving_doubling", "needs a power of two"),
        (
            "broadcast --bytes 8 --ranks 4 --root 4",
            "root 4 must be less than 4, the number of ranks",
        ),
        (
            "allreduce --bytes 8 --ranks 70000",
            "70000 ranks are too many: allreduce takes up to 65536",
        ),
        ("allreduce --bytes 8 --ranks 4 --root 1", "allreduce has no root"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explained(*words.split()) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.err.startswith("ronde explain: error: ")
    assert not captured.out


@pytest.mark.parametrize(
    "words, complaint",
    [
        ("allreduce --bytes 4Q --ranks 4", "'4Q' is not like 8, 4K, 64M or 64MiB"),
        ("allreduce --bytes 0.3 --ranks 4", "'0.3' is not a whole number of bytes"),
        ("allreduce --bytes 4K --ranks 0", "'0' is not a positive number"),
        ("allreduce --bytes 4K --ranks -3", "'-3' is not a positive number"),
        ("allreduce --bytes 4K --ranks 4 --link fast", "'fast' is not like 100Mbit or 10Gbps"),
        ("allreduce --bytes 4K --ranks 4 --link 0Gbit", "the speed of a link must be above 0"),
        ("allreduce --bytes 4K --ranks 4 --alpha 3days", "'3days' is not like 20us or 1ms"),
        ("allreduce --bytes 1e999 --ranks 4", "'1e999' is too large"),
        ("allreduce --bytes 4K --ranks 4 --link 1Gbit --beta 1e-9", "not allowed with"),
        ("allrescue --bytes 4K --ranks 4", "invalid choice: 'allrescue'"),
    ],
)
def test_what_cannot_be_read_is_named(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        explained(*words.split())
    assert complaint in capsys.readouterr().err


def test_compression_is_predicted_where_there_is_any(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "allreduce --bytes 64M --ranks 16 --link 1Gbit")
    head = next(i for i, line in enumerate(lines) if line.startswith("compressor"))
    found = {line.split()[0]: line.split() for line in lines[head + 1 :]}
    assert list(found)[:5] == [
        "exact",
        "bf16()",
        "fp8()",
        "int8()",
        "shared_scale(bits=4)",
    ]
    faster = {name: float(row[-2]) for name, row in found.items()}
    assert faster["exact"] == 1.0 < faster["bf16()"] < faster["int8()"] < faster["int4()"]
    assert found["exact"][1:3] == ["120", "MiB"]  # 2 (P - 1) / P of 64
    for words in (
        "allreduce --bytes 64M --ranks 1",
        "allreduce --bytes 64M --ranks 4 --dtype float64",
        "broadcast --bytes 64M --ranks 4",
        "allreduce --bytes 64M --ranks 4 --algorithm ring",
    ):
        assert not any(line.startswith("compressor") for line in output(capsys, words))

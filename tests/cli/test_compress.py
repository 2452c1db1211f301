"""`ronde bench compress`, from the outside: by itself, and on ranks of its own or of a launcher."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from commands import figures, launched, ronde
from ronde.bench import compressors

QUICK = ["--size", "64K", "--rounds", "2"]
compress = partial(ronde, "bench", "compress")


def test_every_compressor_has_a_line(tmp_path: Path) -> None:
    result = compress(*QUICK, "--json", "all.json", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    kept = json.loads((tmp_path / "all.json").read_text())
    assert kept["method"] == {
        "size": 64 << 10,
        "distribution": "normal",
        "link": 0.125,
        "rounds": 2,
    }
    assert {"version", "date", "host", "CPU", "values", "link"} <= set(kept["about"])
    rows = kept["rows"]
    assert [row["compressor"] for row in rows] == compressors.everything()
    assert [words[0] for words in figures(result.stdout)] == compressors.everything()
    for row in rows:
        assert (row["bytes"], row["ranks"]) == (64 << 10, 1)
        assert row["fewer"] == pytest.approx(row["bytes"] / row["payload"])
        assert {len(times) for times in row["times"].values()} == {2}
        assert set(row["speeds"]) == {"encode", "feedback", "decode", "add"}
        assert min(row["speeds"].values()) > 0
        assert 0 < row["over_link"] <= 0.125 * row["fewer"]
        assert row["error"] > 0
        assert -1 <= row["bias"] <= row["error"]


def test_a_line_has_the_columns_that_the_json_has(tmp_path: Path) -> None:
    words = ["--compressors", "int8, topk(0.1)", "--link", "10Mbit", "--json", "all.json"]
    result = compress(*QUICK, *words, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads((tmp_path / "all.json").read_text())["rows"]
    for line, row in zip(figures(result.stdout), rows, strict=True):
        name, encoding, decoding, loss, link = " ".join(line).split(" | ")
        assert name.split() == [row["compressor"], f"{row['fewer']:.1f}"]
        assert len(encoding.split()) == len(decoding.split()) == 3
        assert loss.split() == [f"{row['error']:.2g}", f"{row['bias']:.2g}", "-"]
        assert float(link) == pytest.approx(row["over_link"], rel=0.01)


@pytest.mark.parametrize("own", [True, False], ids=["-np", "mpirun"])
def test_all_ranks_compress_and_one_speaks(own: bool, tmp_path: Path) -> None:
    words = ["--compressors", "int4,qsgd", *QUICK, "--json", "all.json"]
    start = partial(compress, "-np", "3") if own else partial(launched, 3, "bench", "compress")
    result = start(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [words[0] for words in figures(result.stdout)] == ["int4", "qsgd"]
    rows = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert [row["ranks"] for row in rows] == [3, 3]


def test_the_trade_off_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib")
    words = ["--compressors", "bf16,int4,qsgd", "--distribution", "laplace", "--plot", "all.svg"]
    result = compress(*QUICK, *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    svg = (tmp_path / "all.svg").read_text()
    for text in ("bf16", "int4", "qsgd", "1 Gbit/s link, 64 KiB of float32, laplace"):
        assert f"<!-- {text} -->" in svg


@pytest.mark.parametrize(
    "words, complaint",
    [
        ("--compressors int9", "'int9' is not one of bf16"),
        ("--compressors int8,", "'' is not one of bf16"),
        (
            "--compressors topk(2)",
            "'topk(2)' is not possible: a ratio must be above 0 and at most 1",
        ),
        ("--size 3", "a float32 has 4 bytes"),
        ("--size much", "'much' is not like 8, 4K, 64M or 64MiB"),
        ("--distribution cauchy", "invalid choice: 'cauchy'"),
        ("--link fast", "'fast' is not like 100Mbit or 10Gbps"),
        ("--rounds 0", "'0' is not a positive number"),
        ("--json /nowhere/at/all.json", "the folder of /nowhere/at/all.json does not exist"),
        ("--json /proc", "/proc cannot be written"),
        ("--plot all.xyz", "all.xyz is not a .png, .svg, .pdf"),
        ("allreduce", "unrecognized arguments: allreduce"),
    ],
)
def test_a_wrong_command_line_is_refused(words: str, complaint: str) -> None:
    result = compress(*words.split())
    assert result.returncode == 2, result.stdout + result.stderr
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_ranks_do_not_start_ranks(tmp_path: Path) -> None:
    result = launched(2, "bench", "compress", "-np", "2", cwd=tmp_path)
    assert result.returncode == 2
    assert "call `ronde bench compress -np N ...` without mpirun" in result.stderr
    assert result.stderr.count("ronde bench compress: error") == 1


def test_help_names_every_option_and_compressor() -> None:
    text = " ".join(compress("--help").stdout.split())
    options = "--compressors --size --distribution --link --rounds -np --json --plot"
    assert [word for word in options.split() if word not in text] == []
    assert [name for name in compressors.known() if name not in text] == []

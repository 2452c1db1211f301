"""`ronde bench --compression`, from the outside."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import figures, launched, ronde
from ronde import compression

QUICK = ["--iterations", "3", "--warmup", "1"]
AGREEMENTS = 1000  # bytes that a rank sends to compare a call with those of others, at most
COMPRESSED = ["--compression", "int4,topk(0.01),qsgd", "--rounds", "2", "--no-rotate"]

bench = partial(ronde, "bench")


def by_compression(file: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(file.read_text())["rows"]:
        found.setdefault(row["cell"]["compression"], []).append(row)
    return found


def test_compressors_take_turns_with_exact_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RONDE_SHARED_MEMORY", "0")  # each rank counts as a machine
    monkeypatch.setenv("RONDE_ALGORITHM", "allreduce:ring")  # by measurement it may be another
    sizes = [64 << 10, 256 << 10]
    words = ["--sizes", "64K,256K", *COMPRESSED, *QUICK, "--json", "all.json"]
    result = launched(3, "bench", "allreduce", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "# wire:      between 3 ranks" in result.stdout
    rows = by_compression(tmp_path / "all.json")
    names = ["none", "bf16", "int4", "topk(0.01)", "qsgd"]
    assert list(rows) == names
    for own in rows.values():
        assert [(row["bytes"], row["round"]) for row in own] == [
            (size, number) for size in sizes for number in (0, 1)
        ]
        assert all(row["wrong"] is None and not row["cell"]["in_place"] for row in own)
        assert all(row["algbw"] == pytest.approx(row["bytes"] / row["time"] / 1e3) for row in own)

    for size, own in zip(
        sizes, zip(*(rows[name][::2] for name in names), strict=True), strict=True
    ):
        none, bf16, int4, topk, qsgd = own
        count, crossing = size // 4, 2 * 2 / 3  # of what a rank sends to two others
        # Besides payloads there is what ranks compare calls by.
        assert crossing * size < none["wire"] < crossing * size + AGREEMENTS
        for row, name in ((bf16, "bf16"), (int4, "int4"), (qsgd, "qsgd")):
            payload = getattr(compression, name)().payload_bytes(count)
            assert crossing * payload < row["wire"] < crossing * payload + AGREEMENTS
        # A payload of k values to each, and of their union, which is at most 3 k.
        one, three = (compression.topk(r).payload_bytes(count) for r in (0.01, 0.03))
        assert crossing * one < topk["wire"] < crossing * (one + three) / 2 + AGREEMENTS
        assert none["error"] == 0
        assert 0 < bf16["error"] < 2 / 256  # twice rounded
        assert bf16["error"] < int4["error"] < topk["error"] < 1 < qsgd["error"]

    lines = figures(result.stdout)
    assert [words[:2] for words in lines] == [[str(size), name] for size in sizes for name in names]
    for words in lines:
        fp32, bf16_ratios = (
            list(map(float, " ".join(words).split(" | ")[i].split())) for i in (3, 4)
        )
        assert fp32 == sorted(fp32)
        assert bf16_ratios == sorted(bf16_ratios)
        assert words[1] != "none" or fp32 == [1, 1, 1]
        assert words[1] != "bf16" or bf16_ratios == [1, 1, 1]


def test_inside_one_machine_nothing_is_compressed(tmp_path: Path) -> None:
    words = ["-np", "2", "--sizes", "64K", *COMPRESSED, *QUICK, "--json", "all.json"]
    result = bench("allreduce", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "so nothing is compressed" in result.stdout
    assert "RONDE_SHARED_MEMORY=0" in result.stdout
    for own in by_compression(tmp_path / "all.json").values():
        assert [(row["wire"], row["error"]) for row in own] == [(0, 0)] * 2


def test_only_allreduce_of_floats_is_compressed() -> None:
    words = ["--sizes", "8K", "--dtype", "int8", *COMPRESSED, *QUICK]
    result = bench("allreduce,broadcast", *words)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = figures(result.stdout)
    assert [words[1] for words in lines] == ["none", "bf16", "int4", "topk(0.01)", "qsgd", "8192"]
    for words in lines[1:5]:
        assert "compression needs float32, and op sum or average" in " ".join(words)


def test_peers_are_compared_with_compression(tmp_path: Path) -> None:
    words = ["--sizes", "8K", "--peers", "mpi", "--compression", "int8", "--rounds", "2"]
    result = bench("allreduce", "-np", "2", *words, *QUICK)
    assert result.returncode == 0, result.stdout + result.stderr
    labels = [" ".join(words[4 : words.index("|")]) for words in figures(result.stdout)]
    assert labels == ["ronde", "ronde bf16", "ronde int8", "mpi"]


def test_without_compression_the_wire_is_of_no_interest() -> None:
    result = bench("allreduce", "--sizes", "8", *QUICK)
    assert "# wire" not in result.stdout

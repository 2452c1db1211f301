"""Which ranks NCCL connects, by what each of them has found."""

from __future__ import annotations

import pytest
from ronde import _nccl
from ronde._homes import Home


def home(host: str, gpus: str, nccl: str = "2.28.9", shares: bool = False) -> Home:
    return Home(f"{host} boot", [0], None, gpus=gpus.split(), nccl=nccl, shares_gpus=shares)


@pytest.mark.parametrize(
    "members",
    [
        [home("a", "x")],
        [home("a", "x y"), home("a", "x y")],
        [home("a", "x"), home("a", "y")],  # each sees its own
        [home("a", "x"), home("b", "y"), home("a", "z")],
        [home("a", "x", "2.30.1", True), home("a", "x", "2.30.1", True)],
    ],
)
def test_connected(members: list[Home]) -> None:
    assert _nccl.objection(members) == ""


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([home("a", "x"), home("b", "")], "rank 1 of the process set lacks a GPU or NCCL"),
        ([home("a", "x", ""), home("b", "y")], "rank 0 of the process set lacks a GPU or NCCL"),
        (
            [home("a", "x"), home("b", "y", "2.27.3")],
            "2.28.9 on rank 0 of the process set, 2.27.3 on rank 1",
        ),
        ([home("a", "x", "2.13.4"), home("b", "y", "2.13.4")], "2.13.4 is older than 2.14"),
        ([home("a", "x"), home("a", "x")], "a has 2 ranks and 1 GPU for them"),
        ([home("b", "x y"), home("a", "z"), home("a", "z")], "a has 2 ranks and 1 GPU for them"),
        ([home("a", "x", "2.30.1", True), home("a", "x", "2.30.1")], "a has 2 ranks"),
    ],
)
def test_not_connected(members: list[Home], why: str) -> None:
    assert why in _nccl.objection(members)


def test_nothing_is_looked_for_where_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nccl, "_core", None)
    assert _nccl.found("off") == _nccl.NOTHING

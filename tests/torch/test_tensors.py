"""Tensors of torch in Ronde's own collectives."""

from __future__ import annotations

import pytest
import ronde
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")


@on_ranks(1, 2)
def test_a_tensor_in_gives_a_tensor_back() -> None:
    x = torch.full((3, 2), 2.0, dtype=torch.bfloat16)
    y = ronde.allreduce(x, ronde.Sum)
    assert y.dtype is torch.bfloat16 and y.shape == (3, 2)
    assert (y == 2 * ronde.size()).all()

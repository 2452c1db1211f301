"""A stand-in."""

from __future__ import annotations

from typing import Any

import ronde

__all__ = ["broadcast_optimizer_state", "broadcast_parameters"]


def broadcast_parameters(params: Any, root_rank: int) -> None:
    ronde.broadcast_parameters(params, root_rank)


def broadcast_optimizer_state(optimizer: Any, root_rank: int) -> None:
    optimizer.load_state_dict(ronde.broadcast_object(optimizer.state_dict(), root_rank))

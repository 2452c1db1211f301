"""Ronde for torch."""

from __future__ import annotations

import torch as _torch  # noqa: F401

from .comm_hook import CommHookState, comm_hook

__all__ = ["CommHookState", "comm_hook"]

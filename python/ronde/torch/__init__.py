"""Ronde for torch: what a program written for `horovod.torch` calls."""

from __future__ import annotations

from .compression import Compression
from .optimizer import DistributedOptimizer

__all__ = ["Compression", "DistributedOptimizer"]

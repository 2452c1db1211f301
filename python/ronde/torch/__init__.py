"""Horovod's API for torch."""

from __future__ import annotations

from . import elastic
from .sync_batch_norm import SyncBatchNorm

__all__ = ["SyncBatchNorm", "elastic"]

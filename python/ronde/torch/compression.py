"""Compression of single tensors."""

from __future__ import annotations

from typing import Any

__all__ = ["Compression"]


class _None:
    @staticmethod
    def compress(tensor: Any) -> tuple[Any, Any]:
        return tensor, None

    @staticmethod
    def decompress(tensor: Any, ctx: Any) -> Any:
        return tensor


class _Fp16:
    @staticmethod
    def compress(tensor: Any) -> tuple[Any, Any]:
        return (tensor.half() if tensor.dtype.is_floating_point else tensor), tensor.dtype

    @staticmethod
    def decompress(tensor: Any, ctx: Any) -> Any:
        return tensor.to(ctx)


class Compression:
    """Ways to compress a tensor before it is sent."""

    none = _None
    fp16 = _Fp16

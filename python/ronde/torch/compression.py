"""Compression as Horovod's: tensors are converted before they travel, and converted back.

Ronde's own compressors (`ronde.compression`) keep what they leave out, and are given in the same places.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["Compression", "Compressor"]


class Compressor:
    """The base of compressors: two functions, of a tensor each.

    What `compress` returns is reduced instead of the tensor, so its sum must stand for the sum of the
    tensors.
    """

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return what travels, and whatever `decompress` needs besides."""
        raise NotImplementedError

    @staticmethod
    def decompress(tensor: torch.Tensor, ctx: Any) -> torch.Tensor:
        """Return the tensor again, from what `compress` returned and `ctx`."""
        raise NotImplementedError


class NoneCompressor(Compressor):
    """Nothing is changed."""

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return tensor, None

    @staticmethod
    def decompress(tensor: torch.Tensor, ctx: Any) -> torch.Tensor:
        return tensor


class _Converted(Compressor):
    """Floating tensors travel as another type. `ctx` is the type before."""

    dtype: torch.dtype

    @classmethod
    def compress(cls, tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        compressed = tensor.to(cls.dtype) if tensor.is_floating_point() else tensor
        return compressed, tensor.dtype

    @staticmethod
    def decompress(tensor: torch.Tensor, ctx: Any) -> torch.Tensor:
        return tensor.to(ctx)


class FP16Compressor(_Converted):
    """Floating tensors travel as float16."""

    dtype = torch.float16


class BF16Compressor(_Converted):
    """Floating tensors travel as bfloat16."""

    dtype = torch.bfloat16


class Compression:
    """Compressors to choose from, as `compression=hvd.Compression.fp16`."""

    none = NoneCompressor
    fp16 = FP16Compressor
    bf16 = BF16Compressor

"""Tensors as Ronde knows them: contiguous, of a type of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["KNOWN", "as_bytes", "bits", "joined", "numbers", "put"]


KNOWN = {
    *(torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
}


def numbers(tensor: Tensor) -> Tensor:
    """Its elements to reduce: contiguous, of a type that Ronde knows. It may be a copy."""
    tensor = _dense(tensor)
    return (torch.view_as_real(tensor) if tensor.dtype.is_complex else tensor).contiguous()


def bits(tensor: Tensor) -> Tensor:
    """Its elements to move: contiguous, in one dimension, as bytes if Ronde does not know them. It may be a
    copy."""
    tensor = _dense(tensor).reshape(-1).contiguous()
    return tensor if tensor.dtype in KNOWN else as_bytes(tensor)


def _dense(tensor: Tensor) -> Tensor:
    """Without gradient, and with the values that it shows in memory."""
    if tensor.layout is not torch.strided:
        raise TypeError(f"a dense tensor is needed, not one of layout {tensor.layout}")
    return tensor.detach().resolve_conj().resolve_neg()


def as_bytes(flat: Tensor) -> Tensor:
    """The bytes of a contiguous tensor of one dimension, whose stride may be any if it is short."""
    return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8)


def put(source: Tensor, tensor: Tensor) -> None:
    """Writes what `numbers` or `bits` of a tensor have become to the tensor, unless it is there."""
    if source.data_ptr() == tensor.data_ptr() and tensor.is_contiguous():
        return
    tensor = tensor.detach()
    if source.dtype != tensor.dtype:
        source = source.reshape(-1).view(tensor.dtype)
    tensor.copy_(source.reshape(tensor.shape))


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """The bits of several, one after another."""
    return torch.cat([bits(each) for each in tensors])

"""Compressors written in Python."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from .. import _core
from ..arrays import view
from ..errors import RondeError
from ..objects import pack, unpack
from ._group import Floats, Group, Method
from .codecs import Codec

__all__ = ["codec_of"]


def codec_of(compressor: Any) -> Codec | None:
    """`compressor` itself or what makes use of it, if it is one at all."""
    if isinstance(compressor, Method):
        return compressor if isinstance(compressor, Codec) else None
    has_both = all(_can(compressor, name) for name in ("compress", "decompress"))
    return Custom(compressor) if has_both else None


def _can(compressor: Any, name: str) -> bool:
    """Of a class, as those of Horovod, only what needs no object."""
    if not callable(getattr(compressor, name, None)):
        return False
    found = inspect.getattr_static(compressor, name)
    return not isinstance(compressor, type) or isinstance(found, (staticmethod, classmethod))


class Custom(Codec):
    """An object with `compress(array) -> (payload, ctx)` and `decompress(payload, ctx) -> array`.

    As in Horovod and GRACE: a payload is anything that can be pickled, the context too. The payloads of all
    ranks go to all, and each adds up what it decompresses, in the order of the ranks. All payloads of an
    object whose attribute `sums` is true are arrays, whose sum stands for the sum of the values: they are
    added exactly, and the sum is decompressed with the rank's own context, which must be like the others'.
    Payloads of float16 and bfloat16 are averaged instead, as their sum may not fit, and what is decompressed
    is then multiplied by the number of ranks if `op` is `Sum`.
    """

    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor
        self.unbiased = bool(getattr(compressor, "unbiased", False))
        self.per_rank = True

    def _reduce_bucket(self, bucket: Group, residual: Floats | None, step: int) -> None:
        packed: list[tuple[Any, Any]] = []
        error = None
        try:
            packed = self._packed(bucket, residual)
        except Exception as raised:  # which must not leave the other ranks waiting
            error = raised
        detail = f"compression={self!r}"
        failed = bucket.agreed([error is not None], _core.Op.Max, detail).any()
        if error is not None:
            raise error
        if failed:
            raise RondeError(f"{self!r} has failed on another rank")
        adds = self._adds if getattr(self._compressor, "sums", False) else self._gathers
        factor = bucket.factors[1] / bucket.divisor
        for output, (total, ranks) in zip(bucket.outputs, adds(bucket, packed), strict=True):
            np.multiply(total, np.float32(factor * ranks), out=output)

    def _packed(self, bucket: Group, residual: Floats | None) -> list[tuple[Any, Any]]:
        packed, offset = [], 0
        for x in bucket.scaled().inputs:
            value = x.astype(np.float32)
            if residual is not None:
                left = residual[offset : offset + x.size].reshape(x.shape)
                value += left
            # What is compressed must not change with what the caller or the compressor does later.
            payload, ctx = self._compressor.compress(value.copy())
            if residual is not None:
                left[...] = value - self._decompressed(payload, ctx, value.shape)
                left[~np.isfinite(left)] = 0.0
            packed.append((payload, ctx))
            offset += x.size
        return packed

    def _gathers(self, bucket: Group, packed: list[tuple[Any, Any]]) -> list[tuple[Floats, int]]:
        """What all ranks' values add up to, and 1."""
        mine = pack(packed)
        call = _core.Call("payloads of allreduce", bucket.call or "", detail=repr(self))
        data, lengths = bucket.communicator.allgather(mine, call=call)
        totals = [np.zeros(each.shape, np.float32) for each in bucket.inputs]
        end = 0
        for length in lengths:
            begin, end = end, end + length
            theirs = unpack(data[begin:end])
            for total, (payload, ctx) in zip(totals, theirs, strict=True):
                total += self._decompressed(payload, ctx, total.shape)
        return [(total, 1) for total in totals]

    def _adds(self, bucket: Group, packed: list[tuple[Any, Any]]) -> list[tuple[Floats, int]]:
        """The same divided by a number, and that number."""
        totals = []
        for (payload, ctx), x in zip(packed, bucket.inputs, strict=True):
            seen = view(payload)
            total = np.array(seen.array)
            half = seen.dtype in (_core.DType.float16, _core.DType.bfloat16)
            ranks, op = (bucket.communicator.size, _core.Op.Average) if half else (1, _core.Op.Sum)
            bucket.combine([total], f"payload of {self!r}, shape {seen.shape}", seen.dtype, op)
            totals.append((self._decompressed(seen.wrap(total), ctx, x.shape), ranks))
        return totals

    def _decompressed(self, payload: Any, ctx: Any, shape: tuple[int, ...]) -> Floats:
        found = np.asarray(self._compressor.decompress(payload, ctx))
        if found.shape != shape:
            raise ValueError(
                f"{self!r} has decompressed an array of shape {shape} to one of shape {found.shape}"
            )
        return found.astype(np.float32, copy=False)

    def __repr__(self) -> str:
        return type(self._compressor).__name__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and self._compressor is other._compressor

    def __hash__(self) -> int:
        return hash(id(self._compressor))

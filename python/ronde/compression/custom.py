"""Compressors written in Python."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from typing import Any

import numpy as np

from .. import _core
from ..arrays import View, view
from ..errors import MismatchError, RondeError
from ..objects import pack, unpack
from ._method import Floats, Method, PythonMethod, Steps, agreed
from .codecs import Codec, key_of

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


class Custom(PythonMethod, Codec):
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
        super().__init__()
        self.unbiased = bool(getattr(compressor, "unbiased", False))

    def _reduce(self, bucket: _core.Bucket, residual: Floats | None, step: int) -> Steps:
        adds = bool(getattr(self._compressor, "sums", False))
        packed: list[tuple[Any, Any]] = []
        payloads: list[View] = []
        mine = np.empty(0, np.uint8)
        left = None if residual is None else np.empty_like(residual)
        error = None
        try:
            packed = self._packed(bucket, residual, left)
            if adds:
                payloads = [view(payload) for payload, _ in packed]
            else:
                mine = pack(packed)
        except Exception as raised:  # which must not leave the other ranks waiting
            error = raised
        kind = ", ".join(f"{each.dtype.name}{list(each.shape)}" for each in payloads)
        refusal = yield from self._refusal(bucket, error, kind)
        if refusal:
            return refusal
        totals: list[tuple[Floats, int]] = []
        if adds:
            sums = yield from self._summed(bucket, payloads)
        else:
            gathered = _core.Allgather(mine)
            yield gathered
        try:
            totals = self._added(packed, sums, bucket) if adds else self._all(gathered, bucket)
        except Exception as raised:
            error = raised
        refusal = yield from self._refusal(bucket, error)
        if refusal:
            return refusal
        if residual is not None:
            residual[:] = left
        factor = bucket.factors[1] / (bucket.communicator.size if bucket.averages else 1)
        for output, (total, ranks) in zip(bucket.outputs, totals, strict=True):
            np.multiply(total, np.float32(factor * ranks), out=output)
        return None

    def _refusal(
        self, bucket: _core.Bucket, error: Exception | None, kind: str = ""
    ) -> Generator[_core.Step, None, Exception | None]:
        """What all ranks raise if one of them has failed, or if they have payloads of different kinds."""
        number = key_of(0, 0, kind) >> 12  # so that a float64 holds it
        failed, most, least = yield from agreed(
            bucket, [error is not None, number, -number], _core.Op.Max
        )
        if error is not None:
            return error
        if failed:
            return RondeError(f"{self!r} has failed on another rank")
        if most != -least:
            return MismatchError(f"the payloads of {self!r} differ; those of this rank are {kind}")
        return None

    def _packed(
        self, bucket: _core.Bucket, residual: Floats | None, left: Floats | None
    ) -> list[tuple[Any, Any]]:
        """Payloads and contexts. `left`: what they leave out, the next residual."""
        packed, offset = [], 0
        for x in bucket.scaled().inputs:
            value = x.astype(np.float32)
            part = slice(offset, offset + x.size)
            if residual is not None:
                value += residual[part].reshape(x.shape)
            # What is compressed must not change with what the caller or the compressor does later.
            payload, ctx = self._compressor.compress(value.copy())
            if left is not None:
                rest = (value - self._decompressed(payload, ctx, value.shape)).reshape(-1)
                left[part] = np.where(np.isfinite(rest), rest, 0.0)
            packed.append((payload, ctx))
            offset += x.size
        return packed

    def _all(self, gathered: _core.Allgather, bucket: _core.Bucket) -> list[tuple[Floats, int]]:
        """What all ranks' values add up to, and 1."""
        totals = [np.zeros(each.shape, np.float32) for each in bucket.inputs]
        data, end = gathered.data, 0
        for length in gathered.rows:
            begin, end = end, end + length
            theirs = unpack(data[begin:end])
            for total, (payload, ctx) in zip(totals, theirs, strict=True):
                total += self._decompressed(payload, ctx, total.shape)
        return [(total, 1) for total in totals]

    def _summed(
        self, bucket: _core.Bucket, payloads: list[View]
    ) -> Generator[_core.Step, None, list[tuple[Any, int]]]:
        """The sums of payloads divided by a number, and that number."""
        sums = []
        for seen in payloads:
            total = np.array(seen.array)
            half = seen.dtype in (_core.DType.float16, _core.DType.bfloat16)
            ranks, op = (bucket.communicator.size, _core.Op.Average) if half else (1, _core.Op.Sum)
            yield _core.Allreduce(bucket, [total], [total], seen.dtype, op)
            sums.append((seen.wrap(total), ranks))
        return sums

    def _added(
        self, packed: list[tuple[Any, Any]], sums: list[tuple[Any, int]], bucket: _core.Bucket
    ) -> list[tuple[Floats, int]]:
        return [
            (self._decompressed(total, ctx, x.shape), ranks)
            for (total, ranks), (_, ctx), x in zip(sums, packed, bucket.inputs, strict=True)
        ]

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

    def __reduce__(self) -> tuple[Any, ...]:
        return Custom, (self._compressor,)

    def __setstate__(self, state: dict[str, Any]) -> None:  # of an earlier version
        self.__init__(state["_compressor"])  # type: ignore[misc]

"""How a bucket travels: as it is, converted, or by one of Ronde's compressors."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from .. import handles
from .._gradients import Choice
from .._groups import Labelled, Way, submit_group
from ..arrays import View
from ..compression._method import Method
from ..process_set import ProcessSet
from ..reductions import Average, Op
from ._buckets import Bucket, Finish
from .compression import Compression

__all__ = ["Carrier", "Reduction", "carrier_of"]


class Reduction(NamedTuple):
    """Of gradients, but for how they travel."""

    op: Op
    prescale_factor: float
    postscale_factor: float
    process_set: ProcessSet

    def submit(self, tensor: torch.Tensor, name: str) -> handles.Handle[torch.Tensor]:
        return handles.allreduce_async_(
            tensor,
            self.op,
            name,
            prescale_factor=self.prescale_factor,
            postscale_factor=self.postscale_factor,
            process_set=self.process_set,
        )

    def mean(self, loss: Any, name: str) -> Any:
        """Of what a closure has returned on each rank."""
        own = loss.detach() if isinstance(loss, torch.Tensor) else float(loss)
        return handles.allreduce_async(own, Average, name, process_set=self.process_set).wait()


class Carrier:
    """A bucket travels as it is."""

    def start(self, bucket: Bucket, what: str, reduction: Reduction) -> Finish:
        """`what`: how errors call what is reduced, before the names of parameters."""
        sent = [reduction.submit(part, f"{what} {name}") for name, part in bucket.parts]

        def finish() -> None:
            for handle in sent:
                handle.wait()

        return finish


class Converting(Carrier):
    """A bucket is converted by one of `Compression`; gradient by gradient by a compressor of the user's."""

    def __init__(self, compression: Any) -> None:
        self.compression = compression
        self.of_any_length = compression in (Compression.fp16, Compression.bf16)

    def start(self, bucket: Bucket, what: str, reduction: Reduction) -> Finish:
        sent = []
        for name, part in bucket.parts if self.of_any_length else bucket.views:
            compressed, ctx = self.compression.compress(part)
            sent.append((part, reduction.submit(compressed, f"{what} {name}"), ctx))

        def finish() -> None:
            for part, handle, ctx in sent:
                part.copy_(self.compression.decompress(handle.wait(), ctx))

        return finish


class Compressing(Carrier):
    """Gradients are compressed by one of `ronde.compression`, each under the name of its parameter."""

    def __init__(self, compression: Any) -> None:
        self.choice = Choice(compression)

    def start(self, bucket: Bucket, what: str, reduction: Reduction) -> Finish:
        names, views = map(list, zip(*bucket.views, strict=True))

        def label(_: list[View]) -> Labelled:
            return [
                (self.choice.of(each, view), each) for each, view in zip(names, views, strict=True)
            ]

        factors = reduction.prescale_factor, reduction.postscale_factor
        name = f"{what} {names[0]} to {names[-1]}"
        way = Way("grouped_allreduce", reduction.op, name, *factors, weakref.ref(self))
        call, results_of = submit_group(
            views,
            way,
            reduction.process_set,
            label,
            lambda i: f"the gradient of {names[i]}",
            in_place=True,
        )
        return lambda: void(results_of(call.wait(None)))


def carrier_of(compression: Any) -> Carrier:
    """Raises `TypeError` or `ValueError` for what is no compression."""
    if compression is None or compression is Compression.none:
        return Carrier()
    if isinstance(compression, (str, Method, Mapping)):
        return Compressing(compression)
    if hasattr(compression, "compress") and hasattr(compression, "decompress"):
        return Converting(compression)
    return Compressing(compression)


def void(_: Any) -> None:
    pass

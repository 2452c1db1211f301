"""Buckets: memory in which the gradients of some parameters lie one after another, to be reduced as one.

A bucket on a CPU is memory that the ranks of a machine share, so that they reduce it where it is. `.grad` of
a parameter stays None until autograd makes a gradient; that is copied into the bucket while the caches still
hold it, and `.grad` becomes a *view* of the bucket. To let autograd add to views that were zeroed would take
longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from .. import _core
from ..memory import empty

__all__ = ["Bucket", "Gradient", "partition"]

_ALIGNMENT = 64  # bytes
_LONG = 1 << 20

Finish = Callable[[], None]  # waits for a reduction, whose result is then in the bucket


class Gradient:
    """What is known of the gradient of a parameter."""

    __slots__ = ("bucket", "group", "is_dense", "name", "number", "param", "passes", "view")

    def __init__(self, param: torch.Tensor, name: str, number: int, group: int | None) -> None:
        self.param = param
        self.name = name
        self.number = number  # among all parameters
        self.group = group  # of those that share a bucket
        self.reset()

    def reset(self) -> None:
        """Nothing has come."""
        self.passes = 0  # in which it has come, since the last reduction
        self.is_dense = False  # has been so on all ranks, and is made so from then on
        self.bucket: Bucket | None = None
        self.view: torch.Tensor | None = None

    @property
    def is_in_bucket(self) -> bool:
        return self.view is not None and self.param.grad is self.view

    def fill(self) -> None:
        """Brings the gradient into the bucket; zeros if there is none."""
        grad, view = self.param.grad, self.view
        assert view is not None
        if grad is None:
            view.zero_()
        elif grad is not view:
            _copy(grad.detach(), view)
            self.param.grad = view

    def describe(self) -> str:
        param = self.param
        text = f"{str(param.dtype).removeprefix('torch.')}{list(param.shape)}"
        return text if param.is_contiguous() else f"{text} of strides {list(param.stride())}"


class Bucket:
    """Memory for the gradients of some parameters of one dtype and device."""

    def __init__(self, gradients: list[Gradient]) -> None:
        self.gradients = gradients
        self.awaited: set[Gradient] = set()  # those that are to come in this pass
        self.finish: Finish | None = None  # while it is being reduced
        first = gradients[0].param
        pad = _ALIGNMENT // first.element_size()
        sizes = [-(-each.param.numel() // pad) * pad for each in gradients]
        self.flat = _memory(sum(sizes), first.dtype, first.device)
        start = 0
        for gradient, size in zip(gradients, sizes, strict=True):
            gradient.bucket = self
            gradient.view = _view_like(self.flat[start : start + size], gradient.param)
            start += size

    def await_all(self, passes: int) -> None:
        """At the beginning of a pass: those that have not come so many times are to come, frozen ones as
        well. So what is reduced early is new in every part."""
        self.awaited = {each for each in self.gradients if each.passes < passes}

    @property
    def views(self) -> list[torch.Tensor]:
        return [each.view for each in self.gradients if each.view is not None]

    @property
    def name(self) -> str:
        first, last = self.gradients[0].name, self.gradients[-1].name
        return f"gradient of {first}" if first == last else f"gradients of {first} to {last}"


def partition(
    order: Iterable[Gradient], groups: dict[int, list[Gradient]], limit: int
) -> Iterator[list[Gradient]]:
    """Gradients that share a bucket: those of a group, or up to so many bytes in this order."""
    filling: dict[tuple[torch.dtype, torch.device], list[Gradient]] = {}
    seen: set[int] = set()
    for gradient in order:
        if gradient.number in seen:
            continue
        kind = gradient.param.dtype, gradient.param.device
        if gradient.group is not None:
            members = [
                each
                for each in groups[gradient.group]
                if (each.param.dtype, each.param.device) == kind
            ]
            seen.update(each.number for each in members)
            yield members
            continue
        bucket = filling.setdefault(kind, [])
        if bucket and sum(map(_bytes, bucket)) + _bytes(gradient) > limit:
            yield bucket
            bucket = filling[kind] = []
        bucket.append(gradient)
    yield from filter(None, filling.values())


def _bytes(gradient: Gradient) -> int:
    return int(gradient.param.numel() * gradient.param.element_size())


def _memory(length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros: between the gradients there are gaps, which are reduced as well."""
    if device.type != "cpu":
        return torch.zeros(length, dtype=dtype, device=device)
    shared = torch.from_numpy(empty(length * dtype.itemsize, "uint8"))
    return shared.view(dtype).zero_()


def _copy(grad: torch.Tensor, view: torch.Tensor) -> None:
    """A long gradient goes around the caches, which would have to read the bucket first."""
    is_long = grad.nbytes >= _LONG and grad.device.type == "cpu" and grad.dtype == view.dtype
    if is_long and grad.is_contiguous() and view.is_contiguous():
        source, to = (x.view(-1).view(torch.uint8).numpy() for x in (grad, view))
        _core.copy_bytes(to, source, streaming=True)
    else:
        view.copy_(grad)


def _view_like(part: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """With the strides of the parameter, so that an optimizer need not convert."""
    if _is_dense(param):
        return part.as_strided(param.shape, param.stride())
    return part[: param.numel()].view(param.shape)


def _is_dense(x: torch.Tensor) -> bool:
    """Whether the elements fill a part of memory, in whatever order of the dimensions."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True

"""Buckets: gradients of some parameters that are reduced together.

`.grad` of a parameter stays None until autograd makes a gradient. To let autograd add to memory that was
zeroed would take longer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

import torch

from .. import _core
from ..memory import empty

__all__ = ["Bucket", "Gathered", "Gradient", "InPlace", "partition"]

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
        self.view: torch.Tensor | None = None  # where it is reduced

    def describe(self) -> str:
        param = self.param
        text = f"{str(param.dtype).removeprefix('torch.')}{list(param.shape)}"
        return text if param.is_contiguous() else f"{text} of strides {list(param.stride())}"


class Bucket(ABC):
    """Gradients of one dtype and device."""

    def __init__(self, gradients: list[Gradient]) -> None:
        self.gradients = gradients
        self.awaited: set[Gradient] = set()  # those that are to come in this pass
        self.finish: Finish | None = None  # while it is being reduced
        for gradient in gradients:
            gradient.bucket = self

    def await_all(self, passes: int) -> None:
        """At the beginning of a pass: those that have not come so many times are to come, frozen ones as
        well. So what is reduced early is new in every part."""
        self.awaited = {each for each in self.gradients if each.passes < passes}

    @abstractmethod
    def take(self, gradient: Gradient) -> None:
        """Brings the gradient into the bucket; zeros if there is none."""

    @abstractmethod
    def leave_out(self, gradient: Gradient) -> None:
        """No rank has a new one: what this rank has is to stay."""

    def end(self) -> None:
        """The reduction is over."""
        self.finish = None

    @property
    def views(self) -> list[tuple[str, torch.Tensor]]:
        """The gradients that are reduced, one by one, and whose they are."""
        return [(each.name, each.view) for each in self.gradients if each.view is not None]

    @property
    @abstractmethod
    def parts(self) -> list[tuple[str, torch.Tensor]]:
        """What is reduced, and which parameters' gradients it has."""


class InPlace(Bucket):
    """Inside a machine gradients are reduced where autograd has put them, or in a copy where that memory has
    other holders."""

    def take(self, gradient: Gradient) -> None:
        param = gradient.param
        grad = param.grad
        if grad is None:
            param.grad = torch.zeros_like(param, requires_grad=False)
        elif not _fits(grad, param):
            param.grad = torch.empty_like(param, requires_grad=False).copy_(grad.detach())
        gradient.view = param.grad

    def leave_out(self, gradient: Gradient) -> None:
        gradient.view = None  # this rank may have dropped a gradient between two passes

    def end(self) -> None:
        super().end()
        for gradient in self.gradients:
            gradient.view = None  # the memory is free as soon as `.grad` is another

    @property
    def parts(self) -> list[tuple[str, torch.Tensor]]:
        return [(name, _flat(view)) for name, view in self.views]


class Gathered(Bucket):
    """Gradients are copied one after another into memory, which is reduced as a whole. On a CPU it is memory
    that the ranks of a machine share; and a gradient is copied while the caches still hold it."""

    def __init__(self, gradients: list[Gradient]) -> None:
        super().__init__(gradients)
        first = gradients[0].param
        pad = _ALIGNMENT // first.element_size()
        sizes = [-(-each.param.numel() // pad) * pad for each in gradients]
        self._memory = _memory(sum(sizes), first.dtype, first.device)
        # Views, and what is to be there again.
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        start = 0
        for gradient, size in zip(gradients, sizes, strict=True):
            gradient.view = _view_like(self._memory[start : start + size], gradient.param)
            start += size

    def take(self, gradient: Gradient) -> None:
        grad, view = gradient.param.grad, gradient.view
        assert view is not None
        if grad is None:
            view.zero_()
        elif grad is not view:
            _copy(grad.detach(), view)
        gradient.param.grad = view

    def leave_out(self, gradient: Gradient) -> None:
        view = gradient.view
        assert view is not None
        if gradient.param.grad is view:
            self._kept.append((view, view.clone()))
        view.zero_()

    def end(self) -> None:
        super().end()
        for view, before in self._kept:
            view.copy_(before)
        self._kept.clear()

    @property
    def parts(self) -> list[tuple[str, torch.Tensor]]:
        first, last = self.gradients[0].name, self.gradients[-1].name
        return [(first if first == last else f"{first} to {last}", self._memory)]


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


def _fits(grad: torch.Tensor, param: torch.Tensor) -> bool:
    """Whether a gradient can be reduced where it is: with the strides that it has on other ranks, and in
    memory that nobody else has."""
    return (
        grad.stride() == param.stride()
        and _is_dense(grad)
        and _holders(grad) == _ALONE
        and not (grad.requires_grad or grad.is_neg() or grad.is_conj())
    )


def _holders(x: torch.Tensor) -> tuple[int, int]:
    """How many have the memory of a tensor, and how many the tensor. Autograd lets a gradient have the memory
    of what it came from (`view` passes gradients on like that), which other parameters may get as well, and
    which the rest of the pass may still need."""
    storage = x.untyped_storage()
    return torch._C._storage_Use_Count(storage._cdata), x._use_count()


def _holders_of_a_gradient() -> tuple[int, int]:
    """If only its parameter has it. Python counts as well, and not alike in all versions of torch."""
    param = torch.nn.Parameter(torch.empty(1))
    param.grad = torch.empty(1)
    return _holders(param.grad)


_ALONE = _holders_of_a_gradient()


def _flat(x: torch.Tensor) -> torch.Tensor:
    """All elements, which fill a part of memory."""
    return x if x.is_contiguous() else x.as_strided((x.numel(),), (1,))


def _view_like(part: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """With the strides of the parameter, so that an optimizer need not convert."""
    if _is_dense(param):
        return part.as_strided(param.shape, param.stride())
    return part[: param.numel()].view(param.shape)


def _is_dense(x: torch.Tensor) -> bool:
    """Whether the elements fill a part of memory, in whatever order of the dimensions."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True

"""Gradients are reduced while the backward pass computes others, and are final when it returns.

A *pass* is one `backward()`; there are `passes_per_step` passes to a reduction. In the last of them a hook of
each parameter brings its gradient into a bucket, and a bucket whose gradients have all come is submitted. At
the end of the pass autograd calls `_at_end`, where the ranks tell each other which gradients they have, by
the maximum of a byte for each, the *kind*: nothing, dense, or sparse in so many dimensions. What some rank
has and this one has not is then reduced with zeros of this rank; what none has stays None. Where there are
several optimizers, the ranks agree before on which of them take part (`_peers`).

Buckets are made where gradients come for the first time, in the order in which they came on rank 0.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from .. import context, handles
from .._calls import communicator_of
from ..errors import MismatchError, RondeError
from ..reductions import Max
from ._buckets import Bucket, Gathered, Gradient, InPlace, partition
from ._carriers import Carrier, Reduction
from ._comparison import compare_parameters
from ._peers import Peers
from ._sparse import start_sparse
from ._way import Way

__all__ = ["Reducer"]

_NONE, _DENSE = 0, 1  # kinds; sparse in k dimensions is _DENSE + k
_HEADER = 3  # bytes before the kinds: whether parameters are new, the step, and 255 less it

_BETWEEN_MACHINES = 4 << 20  # bytes of a bucket, as of a slot of the engine (queue.cc)

_hooks = WeakTensorKeyDictionary()  # that of each parameter: there is one optimizer for each


class Reducer(Way):
    """Reduces the gradients of the parameters of one optimizer."""

    def __init__(
        self,
        name: str,
        peers: Peers,
        reduction: Reduction,
        carrier: Carrier,
        passes_per_step: int,
        sparse_as_dense: bool,
    ) -> None:
        self.name = name
        self._peers = peers
        self.reduction = reduction
        self.carrier = carrier
        self.passes_per_step = passes_per_step
        self.sparse_as_dense = sparse_as_dense
        self.gradients: list[Gradient] = []
        self.groups: dict[int, list[Gradient]] = {}
        self.reset()

    def reset(self) -> None:
        self.buckets: list[Bucket] = []
        self.step = 0
        self._known = 0  # parameters that all ranks are known to have
        self._order: list[Gradient] = []  # in which those without bucket have come in this pass
        self._graph_task = -1  # the backward pass whose end is awaited
        self.is_stepping = False  # whether the optimizer's step is under way
        self._is_reduced = False  # whether there was a reduction since the last step
        # The reduced gradients that wait for the step. To add to them would be wrong.
        self._final: dict[Gradient, torch.Tensor] = {}
        self._versions: dict[Gradient, int] = {}  # theirs after the reduction
        for gradient in self.gradients:
            gradient.reset()

    def add(self, params: Iterable[tuple[str, torch.Tensor, int | None]]) -> None:
        this = weakref.ref(self)
        for name, param, group in params:
            gradient = Gradient(param, name, len(self.gradients), group)
            self.gradients.append(gradient)
            if group is not None:
                self.groups.setdefault(group, []).append(gradient)
            before = _hooks.pop(param, None)
            if before is not None:
                before.remove()
            _hooks[param] = _hook(param, partial(_came, this, gradient))

    def came(self, gradient: Gradient) -> None:
        """Autograd has added to `.grad` of the parameter."""
        self.await_end()
        grad = gradient.param.grad
        assert grad is not None
        before = self._final.get(gradient, gradient.view)
        if before is not None and grad is not before and not grad.requires_grad:
            self._final.pop(gradient, None)  # the caller has begun anew
            gradient.passes = 0
        gradient.passes += 1
        bucket = gradient.bucket
        is_under_way = bucket is not None and bucket.finish is not None
        if gradient in self._final or gradient.passes > self.passes_per_step or is_under_way:
            raise _too_many(gradient)
        is_last = gradient.passes == self.passes_per_step
        if bucket is None:
            if is_last:
                self._order.append(gradient)
            return
        if not gradient.is_dense:
            return  # it may be sparse on another rank
        self._make_dense(gradient)
        bucket.take(gradient)
        if not is_last:
            return
        bucket.awaited.discard(gradient)
        if not bucket.awaited and self._known == len(self.gradients):
            self._start(bucket)

    def await_end(self) -> None:
        """Called in a backward pass: autograd will call `_at_end` at its end."""
        graph_task = torch._C._current_graph_task_id()
        if graph_task != self._graph_task:
            self._graph_task = graph_task
            for bucket in self.buckets:
                bucket.await_all(self.passes_per_step)
            torch.autograd.Variable._execution_engine.queue_callback(self._at_end)

    def _at_end(self) -> None:
        node = torch._C._current_autograd_node()
        if node is not None:
            # That was a pass within another, of a checkpoint: the gradients of the outer one follow.
            for following, _ in node.next_functions:
                if following is not None:
                    _once(following, self.await_end)
            return
        self._graph_task = -1
        if self.is_ready():
            self._peers.reduce(self)

    def is_ready(self) -> bool:
        """Whether gradients have come as often as they are to be added up."""
        return any(each.passes >= self.passes_per_step for each in self.gradients)

    def _is_waiting(self) -> bool:
        if any(bucket.finish for bucket in self.buckets):
            return True
        if any(grad._version != self._versions[each] for each, grad in self._final.items()):
            return False
        values = map(_values, self._final.values())
        return bool(self._final) and all(bool(torch.isfinite(each).all()) for each in values)

    def synchronize(self) -> None:
        self.finish()
        self._final.clear()

    def finish(self) -> None:
        """Reduces what a pass has left over, or what other ranks have if there was none."""
        if not self._is_reduced or any(each.passes for each in self.gradients):
            self._peers.reduce(self)

    def before_step(self) -> None:
        self.is_stepping = True
        self._final.clear()
        self._is_reduced = False
        self.step += 1

    def after_step(self) -> None:
        self.is_stepping = False
        self._final.clear()  # what a closure has left
        self._is_reduced = False

    def before_zero_grad(self) -> None:
        """Raises `AssertionError` if reduced gradients wait for a step. Those that are not finite do not,
        as a `GradScaler` skips them; nor do those that the caller has changed, as by clipping: the scaler
        may have seen them before. It changes them without a new version, so both are looked at."""
        if not self.is_stepping and self._is_waiting():
            raise AssertionError(
                "optimizer.zero_grad() was called after loss.backward() but before optimizer.step() or "
                "optimizer.synchronize(): the reduced gradients would be lost. To drop them on all ranks, "
                "call optimizer.synchronize() first"
            )
        self._final.clear()
        self._is_reduced = False
        for gradient in self.gradients:
            gradient.passes = 0
        for bucket in self.buckets:
            bucket.end()

    def mean_loss(self, loss: Any) -> Any:
        return self.reduction.mean(loss, f"{self.name}, the loss of a closure")

    def reduce(self) -> None:
        """Reduces on all ranks what has come on any rank since the last reduction."""
        try:
            with torch.no_grad():
                self._reduce()
        except RondeError as error:
            first, last = self.gradients[0].name, self.gradients[-1].name
            raise type(error)(
                f"{error}\nGradients of the {len(self.gradients)} parameters {first} to {last} were "
                "being reduced."
            ) from None
        finally:
            for gradient in self.gradients:
                gradient.passes = 0
            for bucket in self.buckets:
                bucket.end()
            self._order.clear()
        self._versions = {each: grad._version for each, grad in self._final.items()}
        self._is_reduced = True

    def _reduce(self) -> None:
        kinds = self._agree()
        came = [each for each in self.gradients if kinds[each.number] != _NONE]
        self._make_buckets([each for each in came if kinds[each.number] == _DENSE])
        self._start_rest(kinds)
        sparse = [
            (
                each,
                start_sparse(each, kinds[each.number] - _DENSE, self._call(each), self.reduction),
            )
            for each in came
            if kinds[each.number] > _DENSE
        ]
        for bucket in self.buckets:
            if bucket.finish is not None:
                bucket.finish()
        for gradient, finish in sparse:
            gradient.param.grad = finish()
        for gradient in came:
            if kinds[gradient.number] == _DENSE:
                gradient.is_dense = True
                gradient.param.grad = gradient.view
            assert gradient.param.grad is not None
            self._final[gradient] = gradient.param.grad

    def _agree(self) -> npt.NDArray[np.uint8]:
        """The kind of each gradient, on any rank."""
        step = self.step % 256
        kinds = map(self._kind, self.gradients)
        mine = np.array(
            [self._known != len(self.gradients), step, 255 - step, *kinds], dtype=np.uint8
        )
        name = f"{self.name}, which gradients there are"
        try:
            handles.allreduce_async_(mine, Max, name, process_set=self.reduction.process_set).wait()
        except MismatchError:
            self._compare()  # says more, on all ranks
            raise
        if mine[0] or int(mine[1]) + int(mine[2]) != 255:
            self._compare()
        self._known = len(self.gradients)
        return mine[_HEADER:]

    def _kind(self, gradient: Gradient) -> int:
        grad = gradient.param.grad
        if gradient.passes == 0 or grad is None:
            return _NONE
        if grad.is_sparse and not (self.sparse_as_dense or gradient.is_dense):
            return _DENSE + int(grad.sparse_dim())
        return _DENSE

    def _compare(self) -> None:
        compare_parameters(self.name, self.step, self.gradients, self.reduction)

    def _make_buckets(self, came: list[Gradient]) -> None:
        """For gradients that have none yet, in the order of rank 0."""
        new = [each for each in came if each.bucket is None]
        if not new:
            return
        places = {gradient: place for place, gradient in enumerate(self._order)}
        order = sorted(reversed(new), key=lambda each: places.get(each, len(places)))
        numbers = np.array([each.number for each in order], np.int64)
        root = self.reduction.process_set.ranks[0]
        name = f"{self.name}, the order of the gradients"
        process_set = self.reduction.process_set
        handles.broadcast_async_(numbers, root, name, process_set=process_set).wait()
        order = [self.gradients[number] for number in numbers]
        # Between machines smaller buckets keep the wire busy while others are computed. Inside a machine
        # there is no wire, and large ones cost the processors least.
        communicator = communicator_of(self.reduction.process_set)
        one_machine = communicator.local_size == communicator.size
        limit = context.world().settings.fusion_bytes
        limit = limit if one_machine else min(limit, _BETWEEN_MACHINES)
        for gradients in partition(order, self.groups, limit):
            in_place = one_machine and gradients[0].param.device.type == "cpu"
            self.buckets.append(InPlace(gradients) if in_place else Gathered(gradients))

    def _start_rest(self, kinds: npt.NDArray[np.uint8]) -> None:
        """Submits the buckets of which some rank has a gradient."""
        for bucket in self.buckets:
            dense = [each for each in bucket.gradients if kinds[each.number] == _DENSE]
            if bucket.finish is not None or not dense:
                continue
            for gradient in bucket.gradients:
                if kinds[gradient.number] == _DENSE:
                    self._make_dense(gradient)
                    bucket.take(gradient)
                else:
                    bucket.leave_out(gradient)
            self._start(bucket)

    def _make_dense(self, gradient: Gradient) -> None:
        grad = gradient.param.grad
        if grad is not None and grad.is_sparse:
            gradient.param.grad = grad.to_dense()

    def _start(self, bucket: Bucket) -> None:
        bucket.finish = self.carrier.start(bucket, f"{self.name}, gradient of", self.reduction)

    def _call(self, gradient: Gradient) -> str:
        return f"{self.name}, sparse gradient of {gradient.name}"


def _came(reducer: weakref.ref[Reducer], gradient: Gradient, _: torch.Tensor) -> None:
    alive = reducer()
    if alive is not None:
        alive.came(gradient)


def _too_many(gradient: Gradient) -> AssertionError:
    return AssertionError(
        f"the gradient of {gradient.name} was computed more than backward_passes_per_step times "
        "before call to step(): increase backward_passes_per_step to accumulate gradients locally"
    )


def _hook(param: torch.Tensor, function: Callable[[torch.Tensor], None]) -> Any:
    """Registers a hook, also with a frozen parameter: it may be unfrozen later."""
    frozen = not param.requires_grad
    if frozen:
        param.requires_grad_(True)
    handle = param.register_post_accumulate_grad_hook(function)
    if frozen:
        param.requires_grad_(False)
    return handle


def _once(node: Any, function: Callable[[], None]) -> None:
    """Before autograd enters the node, in the pass that it belongs to."""

    def enter(_: Any) -> None:
        handle.remove()
        function()

    handle = node.register_prehook(enter)


def _values(grad: torch.Tensor) -> torch.Tensor:
    return grad._values() if grad.is_sparse else grad

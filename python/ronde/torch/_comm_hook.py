"""A communication hook for `DistributedDataParallel`: its gradients by Ronde's collectives, compressed.

    state = ronde.torch.CommHookState("int4", named_parameters=model.named_parameters())
    model.register_comm_hook(state, ronde.torch.comm_hook)

It works with any backend of the model's process group, as it uses Ronde's own communicator.
"""

# (No annotations as text: DDP compares those of the hook with its types.)

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.futures import Future

from .._gradients import Choice
from .._groups import Way, submit_group
from ..compression import feeding_back, method_of
from ..compression.codecs import Codec
from ..handles import Handle
from ..process_set import ProcessSet, global_process_set
from ..reductions import Average
from .distributed.futures import future_of

__all__ = ["CommHookState", "comm_hook"]


class CommHookState:
    """What a model's hook keeps from step to step.

    What a compressor leaves out of a gradient is added to the next one of the same parameter, in whatever
    bucket that is: DDP makes new buckets after the first step.

    Args:
        compression: one of `ronde.compression`, or its name, or None for exact gradients. What is not
            unbiased gets error feedback. Vectors, which are biases and norms, stay exact, and so does what is
            no float.
        named_parameters: of the model, for errors, reports and saved states; by default parameters are
            numbered in the order in which their gradients come first.
        process_set: the ranks of the model's process group; None for all.

    Raises:
        TypeError: `compression` is none.
        ValueError: there is no compressor of that name.
    """

    def __init__(
        self,
        compression: Any = None,
        named_parameters: Iterable[tuple[str, Tensor]] = (),
        process_set: ProcessSet | None = global_process_set,
    ) -> None:
        method = method_of(compression)
        self.compression = None if method is None else feeding_back(method)
        self.process_set = process_set
        self._choice = Choice(self.compression)
        self._names = {parameter: name for name, parameter in named_parameters}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the compressor on this rank, with the residuals of all parameters."""
        method: Any = self.compression
        return {} if method is None else method.state_dict()

    def load_state_dict(self, state: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> None:
        """Load what `state_dict` returned on this rank of an earlier job, or a list of that of all its ranks.

        Raises:
            ValueError: it belongs to another compressor.
        """
        method: Any = self.compression
        if isinstance(method, Codec):
            method.load_state_dict(state)  # type: ignore[arg-type]
        elif method is not None:
            method.load_state_dict(state, self.process_set)
        elif state:
            raise ValueError("this state belongs to a compressor, and this hook has none")

    def _submit(self, bucket: Any) -> Handle[Any]:
        """Averages the gradients in place."""
        gradients = bucket.gradients()
        labels = tuple(map(self._name, bucket.parameters()))
        way = Way("grouped_allreduce", Average, None, 1.0, 1.0, (weakref.ref(self), labels))
        call, results_of = submit_group(
            gradients,
            way,
            self.process_set,
            lambda _: [
                (self._choice.of(label, gradient), label)
                for label, gradient in zip(labels, gradients, strict=True)
            ],
            lambda i: f"the gradient of {labels[i]}",
            in_place=True,
        )
        return Handle(call, results_of)

    def _name(self, parameter: Tensor) -> str:
        return self._names.setdefault(parameter, f"parameter {len(self._names)}")


def comm_hook(state: CommHookState, bucket: dist.GradBucket) -> Future[Tensor]:
    """Average the gradients of a bucket over the ranks, for `register_comm_hook`.

    Args:
        state: of this model.
        bucket: a `torch.distributed.GradBucket`.

    Returns:
        A future of the averaged gradients. The backward pass goes on meanwhile.

    Raises:
        TypeError: `state` is no `CommHookState`.
    """
    if not isinstance(state, CommHookState):
        raise TypeError(f"the state of this hook is a ronde.torch.CommHookState, not {state!r}")
    handle, buffer = state._submit(bucket), bucket.buffer()

    def averaged() -> Tensor:
        handle.wait()
        return buffer

    return future_of(averaged, handle.done)

"""The process group: every collective of `torch.distributed`, submitted to Ronde's engine.

What the ranks of a group call in the same order belongs together, as torch demands. So calls have no names.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch import Tensor

import ronde
from ronde import handles, own_sets
from ronde.process_set import ProcessSet

from . import movements, reductions
from .point_to_point import Receive, Send, give_up
from .work import Pending, Together, Work

__all__ = ["ProcessGroup"]

Tensors = Sequence[Tensor]


class ProcessGroup(dist.ProcessGroup):
    """A group of ranks whose collectives are Ronde's.

    `torch.distributed.init_process_group("ronde")` and `new_group` make them. Every collective submits a
    call, and returns a `Work`. Ranks are those of the group.

    Args:
        process_set: its members.
        timeout: how long a `Work` is waited for, at most.
    """

    def __init__(self, process_set: ProcessSet, timeout: timedelta) -> None:
        super().__init__(process_set.rank(), process_set.size())
        self.process_set = process_set
        self._seconds = timeout.total_seconds()
        self._coalesced: list[Work] | None = None
        self._name = self._description = ""

    def _work(self, pending: Pending, tensors: Any, waits: int = 1) -> Work:
        work = Work(pending, tensors, self._seconds, waits)
        if self._coalesced is not None:
            self._coalesced.append(work)
        return work

    # Who it is.

    def getBackendName(self) -> str:
        return "ronde"

    _get_backend_name = getBackendName

    def getGroupName(self) -> str:
        return self._name

    def setGroupName(self, name: str) -> None:
        self._name = name

    def getGroupDesc(self) -> str:
        return self._description

    def setGroupDesc(self, description: str) -> None:
        self._description = description

    # In torch 2.4 the above are not asked.
    _set_group_name, _set_group_desc = setGroupName, setGroupDesc
    group_name, group_desc = property(getGroupName), property(getGroupDesc)

    def set_timeout(self, timeout: timedelta) -> None:
        self._seconds = timeout.total_seconds()

    def shutdown(self) -> None:
        """End the use of this group by this rank. Calls that are pending on it fail."""
        give_up(self.process_set)
        if self.process_set is not ronde.global_process_set:
            own_sets.remove(self.process_set)

    abort = shutdown

    # Collectives that compute.

    def allreduce(self, tensors: Any, opts: Any = None, timeout: Any = None) -> Work:
        tensors, op = _listed(tensors), _op(opts)
        calls = [reductions.allreduce(self.process_set, each, op) for each in tensors]
        return self._work(_one(calls), tensors, len(tensors))

    allreduce_coalesced = allreduce

    def reduce(self, tensors: Any, root: Any = 0, op: Any = None, timeout: Any = None) -> Work:
        [tensor] = tensors = _listed(tensors)
        call = reductions.reduce(
            self.process_set, tensor, _root(root), _op(root if op is None else op)
        )
        return self._work(call, tensors)

    def reduce_scatter(
        self, outputs: Any, inputs: Any, opts: Any = None, timeout: Any = None
    ) -> Work:
        [output], [parts] = _listed(outputs), _listed_twice(inputs)
        call = reductions.reduce_scatter_parts(self.process_set, output, parts, _op(opts))
        return self._work(call, [output])

    def _reduce_scatter_base(self, output: Tensor, whole: Tensor, opts: Any = None) -> Work:
        return self.reduce_scatter_tensor_coalesced([output], [whole], opts)

    def reduce_scatter_tensor_coalesced(
        self, outputs: Tensors, wholes: Tensors, opts: Any = None
    ) -> Work:
        op = _op(opts)
        calls = [
            reductions.reduce_scatter(self.process_set, output, whole, op)
            for output, whole in zip(outputs, wholes, strict=True)
        ]
        return self._work(_one(calls), outputs, len(outputs))

    reduce_scatter_single = _reduce_scatter_base
    reduce_scatter_single_coalesced = reduce_scatter_tensor_coalesced

    # Collectives that move data.

    def broadcast(self, tensors: Any, root: Any = 0, timeout: Any = None) -> Work:
        tensors = _listed(tensors)
        calls = [movements.broadcast(self.process_set, each, _root(root)) for each in tensors]
        return self._work(_one(calls), tensors)

    def allgather(self, outputs: Any, tensors: Any, opts: Any = None, timeout: Any = None) -> Work:
        return self._allgather(_listed_twice(outputs), _listed(tensors))

    def allgather_coalesced(
        self, outputs: Sequence[Tensors], tensors: Tensors, opts: Any = None
    ) -> Work:
        """Gather several tensors. `outputs` has a list for each rank."""
        if len(outputs) != self.size() or any(len(each) != len(tensors) for each in outputs):
            raise ValueError(
                f"all_gather_coalesced needs {len(tensors)} outputs for each of {self.size()} ranks"
            )
        return self._allgather(list(zip(*outputs, strict=True)), tensors)

    def _allgather(self, outputs: Sequence[Tensors], tensors: Tensors) -> Work:
        calls = [
            movements.allgather(self.process_set, each, tensor)
            for each, tensor in zip(outputs, tensors, strict=True)
        ]
        return self._work(_one(calls), outputs)

    def _allgather_base(self, output: Tensor, tensor: Tensor, opts: Any = None) -> Work:
        return self.allgather_into_tensor_coalesced([output], [tensor])

    def allgather_into_tensor_coalesced(
        self, outputs: Tensors, tensors: Tensors, opts: Any = None
    ) -> Work:
        calls = [
            movements.allgather_base(self.process_set, output, tensor)
            for output, tensor in zip(outputs, tensors, strict=True)
        ]
        return self._work(_one(calls), outputs, len(outputs))

    all_gather_single = _allgather_base
    all_gather_single_coalesced = allgather_into_tensor_coalesced

    def gather(self, outputs: Any, tensors: Any, root: Any = 0, timeout: Any = None) -> Work:
        [tensor], lists = _listed(tensors), _listed_twice(outputs)
        into = lists[0] if lists else []
        return self._work(movements.gather(self.process_set, into, tensor, _root(root)), lists)

    def scatter(self, outputs: Any, inputs: Any, root: Any = 0, timeout: Any = None) -> Work:
        [output], lists = _listed(outputs), _listed_twice(inputs)
        parts = lists[0] if lists else []
        call = movements.scatter(self.process_set, output, parts, _root(root))
        return self._work(call, [output])

    def alltoall(self, outputs: Tensors, inputs: Tensors, opts: Any = None) -> Work:
        return self._work(movements.alltoall(self.process_set, outputs, inputs), outputs)

    def alltoall_base(
        self,
        output: Tensor,
        whole: Tensor,
        output_splits: Sequence[int],
        input_splits: Sequence[int],
        opts: Any = None,
    ) -> Work:
        call = movements.alltoall_base(self.process_set, output, whole, output_splits, input_splits)
        return self._work(call, [output])

    all_to_all_single = alltoall_base

    # To wait for each other.

    def barrier(self, opts: Any = None, timeout: Any = None) -> Work:
        return self._work(handles.barrier_async(process_set=self.process_set), [])

    def monitored_barrier(
        self, timeout: timedelta | None = None, wait_all_ranks: bool = False
    ) -> None:
        """Wait for all ranks. Every call of Ronde reports who is missing, so this one is like all."""
        work = self.barrier()
        work.wait() if timeout is None else work.wait(timeout)

    # Messages.

    def send(self, tensors: Tensors, destination: int, tag: int = 0) -> Work:
        [tensor] = tensors
        return self._work(Send(self.process_set, tensor, destination, tag), tensors)

    def recv(self, tensors: Tensors, source: int, tag: int = 0) -> Work:
        [tensor] = tensors
        return self._work(Receive(self.process_set, tensor, source, tag), tensors)

    def recv_anysource(self, tensors: Tensors, tag: int = 0) -> Work:
        [tensor] = tensors
        return self._work(Receive(self.process_set, tensor, None, tag), tensors)

    # Calls that are waited for as one.

    def _start_coalescing(self, device: Any = None) -> None:
        self._coalesced = []

    def _end_coalescing(self, device: Any = None) -> Work:
        works, self._coalesced = self._coalesced or [], None
        for each in works:
            each.drop()
        return Work(_one([each.pending for each in works]), [], self._seconds)


def _one(calls: list[Pending]) -> Pending:
    return calls[0] if len(calls) == 1 else Together(calls)


def _listed(tensors: Any) -> Tensors:
    return [tensors] if isinstance(tensors, Tensor) else tensors


def _listed_twice(tensors: Any) -> Sequence[Tensors]:
    """A list for each input: many calls of torch have one only."""
    return [tensors] if tensors and isinstance(tensors[0], Tensor) else tensors


def _op(opts: Any) -> Any:
    return dist.ReduceOp.SUM if opts is None else getattr(opts, "reduceOp", opts)


def _root(opts: Any) -> int:
    root: int = getattr(opts, "rootRank", opts)
    return root

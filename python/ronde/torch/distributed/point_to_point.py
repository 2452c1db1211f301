"""Send and receive, by messages of MPI on the communicator of the group.

A receive is not given to MPI before its message has come, as a longer one would be written past its end. So
somebody must look for messages: whoever waits for one, and a thread while there are some under way, as the
other end may wait for this one while this one waits for something else.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import torch
from torch import Tensor

from ronde import _mpi, context
from ronde.errors import RankFailedError, RondeError, StalledError, UnavailableError
from ronde.process_set import ProcessSet

from .operands import as_bytes, bits, put

__all__ = ["Message", "Receive", "Send", "give_up"]

_FIRST_TAG = _mpi.FREE_TAG + 1  # after that of own_sets.py
_PAUSE = 5e-4  # of the thread

# The sources (None for any) of receives whose messages have not come, by process set and tag. A later receive
# must not take a message that one of these may take.
Waiting = dict[tuple[int, int], set[int | None]]


class Message:
    """One that is under way."""

    def __init__(self, process_set: ProcessSet, what: str, tag: int, peers: list[int]) -> None:
        state = context.world()
        MPI = state.job.MPI
        if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            raise UnavailableError(
                "send and receive need MPI_THREAD_MULTIPLE; set mpi4py.rc.thread_level = 'multiple' before "
                "mpi4py.MPI is imported"
            )
        process_set._member()  # raises if the set is not in use
        assert process_set.process_set_id is not None
        self.set_id = process_set.process_set_id
        _, self.comm = state.sets[self.set_id]
        highest = self.comm.Get_attr(MPI.TAG_UB) - _FIRST_TAG
        if not 0 <= tag <= highest:
            raise ValueError(f"tag must be from 0 to {highest}, not {tag}")
        size = process_set.size()
        if any(not 0 <= peer < size for peer in peers):
            raise ValueError(f"{what}: there is no such rank among the {size} of the group")
        if process_set.rank() in peers:
            raise ValueError(f"{what}: a rank sends no messages to itself")
        self.MPI, self.what, self.tag, self.control = MPI, what, _FIRST_TAG + tag, state.control
        self.deadline = state.settings.core.stall_timeout
        self.request: Any = None
        self.ended = False
        self.error: Exception | None = None

    def step(self, waiting: Waiting) -> bool:
        """Goes on, as far as that is possible. Whether it has ended."""
        try:
            if not (self.begins(waiting) and self.request.Test()):
                return False
            self.finish()
        except Exception as error:
            self.error = error
        self.ended = True  # last, as other threads look at it
        return True

    def begins(self, waiting: Waiting) -> bool:
        """Whether MPI has it."""
        return True

    def finish(self) -> None:
        """When it has arrived."""

    def done(self) -> bool:
        return self.ended or _under_way.progress(self)

    def wait(self, timeout: float | None = None) -> None:
        for waited in _mpi.waits(self.done):
            if failure := self.control.listen():
                raise RankFailedError(f"{self.what}: {failure}")
            if timeout and waited > timeout:
                raise TimeoutError(f"{self.what} has not ended within {timeout:.6g} s")
            if self.deadline and waited > self.deadline:
                raise StalledError(
                    f"{self.what} has not ended within {self.deadline:.6g} s (RONDE_STALL_TIMEOUT)"
                )
        if self.error is not None:
            raise self.error


class Send(Message):
    """A tensor on its way to a rank of the group. It may be changed when the send has ended."""

    def __init__(self, process_set: ProcessSet, tensor: Tensor, destination: int, tag: int) -> None:
        super().__init__(process_set, f"send to rank {destination}", tag, [destination])
        self.data = as_bytes(bits(tensor.cpu())).numpy()
        self.request = self.comm.Isend(self.data, destination, self.tag)
        _under_way.add(self)


class Receive(Message):
    """A tensor that comes from a rank of the group, or from any: `source` is None then, until it has come."""

    def __init__(
        self, process_set: ProcessSet, tensor: Tensor, source: int | None, tag: int
    ) -> None:
        of = "any rank" if source is None else f"rank {source}"
        super().__init__(process_set, f"receive from {of}", tag, [] if source is None else [source])
        self.source, self.tensor = source, tensor
        self.into = bits(tensor.cpu())
        self.data = as_bytes(self.into).numpy()
        self.wrong = ""
        _under_way.add(self)

    def begins(self, waiting: Waiting) -> bool:
        if self.comm == self.MPI.COMM_NULL:
            raise RondeError(f"{self.what}: Ronde was shut down")
        if self.request is not None:
            return True
        before = waiting.setdefault((self.set_id, self.tag), set())
        is_next = not before if self.source is None else before.isdisjoint((self.source, None))
        if is_next:
            status = self.MPI.Status()
            source = self.MPI.ANY_SOURCE if self.source is None else self.source
            message = self.comm.Improbe(source, self.tag, status)
            if message is not None:
                self.source = status.Get_source()
                self._take(message, status.Get_count(self.MPI.BYTE))
                return True
        before.add(self.source)
        return False

    def _take(self, message: Any, count: int) -> None:
        if count != self.data.size:
            self.wrong = (
                f"receive from rank {self.source}: {count} bytes came, not {self.data.size}"
            )
            self.data = torch.empty(count, dtype=torch.uint8).numpy()
        self.request = message.Irecv(self.data)

    def finish(self) -> None:
        if self.wrong:
            raise RondeError(self.wrong)
        put(self.into.to(self.tensor.device), self.tensor)


class _UnderWay:
    """All messages that are, in the order in which they were submitted."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: list[Message] = []
        self._thread: threading.Thread | None = None

    def add(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="ronde messages", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def progress(self, message: Message) -> bool:
        """Moves all of them. Whether this one has ended."""
        with self._changed:
            self._step()
        return message.ended

    def give_up(self, process_set: ProcessSet) -> None:
        """Ends the receives of a set whose messages have not come."""
        with self._changed:
            for each in self._messages:
                if each.set_id == process_set.process_set_id and each.request is None:
                    each.error = RondeError(f"{each.what}: the process group was destroyed")
                    each.ended = True
            self._messages = [each for each in self._messages if not each.ended]

    def _step(self) -> None:
        waiting: Waiting = {}
        self._messages = [each for each in self._messages if not each.step(waiting)]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._messages)
                self._step()
            time.sleep(_PAUSE)


_under_way = _UnderWay()
give_up = _under_way.give_up

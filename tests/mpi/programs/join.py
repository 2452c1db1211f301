"""Ranks that have no more data, in a real job: join.py CASE."""

import os
import signal
import sys
import threading
import time

import numpy as np
import ronde

ronde.init()
rank, size = ronde.rank(), ronde.size()
BATCHES = [3, 7, 5, 4]


class Descent:
    """Whose parameters are the sums of all gradients."""

    def __init__(self) -> None:
        self.sums = [np.zeros((20, 20), np.float32), np.zeros(7, np.float32)]

    def step(self, grads: list[np.ndarray]) -> None:
        for total, gradient in zip(self.sums, grads, strict=True):
            total += gradient


def gradients(step: int, who: int = rank) -> list[np.ndarray]:
    drawn = np.random.default_rng([step, who])
    return [drawn.integers(-8, 9, shape).astype(np.float32) for shape in ((20, 20), (7,))]


def there(step: int) -> list[int]:
    return [r for r in range(size) if step < BATCHES[r]]


def training() -> None:
    """Averages over all ranks or over those that contribute, compressed or not, early or not."""
    for average in ("size", "contributing"):
        for compression in (None, "topk", "int8", "dgc", "powersgd"):
            own = Descent()
            opt = ronde.DistributedOptimizer(own, compression=compression)
            expected = Descent()
            for step in range(BATCHES[rank]):
                grads = gradients(step)
                before = [total.copy() for total in own.sums]
                if compression is None and step % 2:
                    opt.ready(1, grads[1])
                opt.step(grads)
                if compression and len(there(step)) == size:
                    expected.sums = [total.copy() for total in own.sums]
                    continue  # compressed where all take part
                divisor = size if average == "size" else len(there(step))
                everybody = [gradients(step, r) for r in there(step)]
                expected.step(
                    [sum(each) / np.float32(divisor) for each in zip(*everybody, strict=True)]
                )
                for a, b, old in zip(own.sums, expected.sums, before, strict=True):
                    np.testing.assert_allclose(a - old, b - old, rtol=1e-5, atol=1e-4)
            assert ronde.join(average) == 1
            # Those that went on to the end have the parameters of the last.
            own.sums = ronde.broadcast_object(own.sums, 1)


def objects() -> None:
    """Calls that are made of several, and grouped ones, on a process set too."""
    half = ronde.add_process_set([0, 2])
    if rank in (1, 2):
        assert ronde.allgather_object({"rank": rank}) == [{"rank": 1}, {"rank": 2}]
        assert ronde.broadcast_object(list(range(rank)), 2) == [0, 1]
        parameters = {"a": np.full(3, float(rank)), "b": np.full((2, 2), rank)}
        ronde.broadcast_parameters(parameters, 1)
        assert (parameters["a"] == 1).all() and (parameters["b"] == 1).all()
        xs = [np.full(1000, float(rank)), np.full(3, rank), np.full(2, rank, np.float32)]
        for found in ronde.grouped_allreduce(xs, ronde.Sum):
            assert (found == 3).all()
        for found in ronde.grouped_allreduce_async(xs, ronde.Sum, "g").wait():
            assert (found == 3).all()
        for found in ronde.grouped_allgather(xs):
            assert len(found) in (2000, 6, 4)
        assert ronde.scatter(np.arange(4.0), 1)[0] == rank
        for root in (0, 3):
            try:
                ronde.broadcast_object("x", root)
            except ronde.MismatchError as error:
                assert f"rank {root} has joined" in str(error), error
            else:
                raise AssertionError
    else:
        for root in (0, 3):
            try:
                ronde.join()
            except ronde.MismatchError as error:
                assert f"rank {root} has joined" in str(error), error
            else:
                raise AssertionError
    assert ronde.join() == 3
    if half.included():
        if rank == 2:
            assert (ronde.allreduce(np.ones(3), process_set=half) == 0.5).all()
        assert ronde.join(process_set=half) == 2
    assert ronde.allreduce(1.0) == 1.0


def sets() -> None:
    """Process sets need all ranks; an error leaves everything as it was."""
    half = ronde.add_process_set([0, 2])
    for change in (lambda: ronde.add_process_set([1]), lambda: ronde.remove_process_set(half)):
        try:
            ronde.join() if rank == 1 else change()
        except ronde.MismatchError as error:
            assert "needs all ranks" in str(error) and "process_set" in str(error), error
        else:
            raise AssertionError
    ronde.join()
    ronde.remove_process_set(half)
    assert (ronde.allreduce_async(np.ones(3), name="w").wait() == 1).all()


def counts() -> None:
    """What ranks that have joined take part in counts as what they call; join is one call."""
    before = ronde.counters()
    if rank == 1:
        for _ in range(5):
            ronde.allreduce(np.ones(3))
            ronde.allreduce_async(np.ones(3), name="g", compression="int8").wait()
    assert ronde.join() == 1
    counted = {name: ronde.counters()[name] - before[name] for name in before}
    assert (counted["calls"], counted["asynchronous_calls"]) == (6, 5), counted
    assert counted["failed_calls"] == 0, counted


def ends() -> None:
    """The others end while rank 1 is in join."""
    ronde.allreduce_async(np.ones(3), name="w").wait()
    if rank == 1:
        ronde.join()


def killed() -> None:
    if rank == 2:
        ronde.allreduce(np.ones(3))
        os.kill(os.getpid(), signal.SIGKILL)
    ronde.join()


def raises() -> None:
    if rank == 2:
        ronde.allreduce(np.ones(3))
        raise ValueError("something of the user's")
    ronde.join()


def interrupted() -> None:
    """Ctrl-C in join."""
    if rank == 2:
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        ronde.join()
    if rank == 0:
        ronde.join()
    while True:
        ronde.allreduce(np.ones(3))
        time.sleep(0.01)


globals()[sys.argv[1]]()
print(f"rank {rank} is done", flush=True)

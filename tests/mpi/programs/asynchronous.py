"""Asynchronous calls in a real job: asynchronous.py CASE."""

import contextlib
import os
import random
import re
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import ronde

ronde.init()
rank, size = ronde.rank(), ronde.size()
total = size * (size + 1) / 2


def mine(length: int = 1000) -> np.ndarray:
    return np.full(length, rank + 1.0)


def orders() -> None:
    """Names in another order on each rank, on two process sets, with blocking calls in between."""
    half = ronde.add_process_set([r for r in range(size) if r % 2 == 0])
    shuffled = random.Random(rank)
    names = [str(i) for i in range(50)]
    for step in range(20):
        handles = {}
        for name in shuffled.sample(names, len(names)):
            handles[name] = ronde.allreduce_async(mine(int(name)), ronde.Sum, name)
            if half.included():
                part = ronde.allreduce_async(mine(3), ronde.Sum, name, process_set=half)
                handles[name + " of half"] = part
        if step % 3 == 0:
            assert (ronde.allreduce(mine(5), ronde.Sum) == total).all()
        if step % 3 == 1 and rank == 1:
            time.sleep(0.01)
        for name in shuffled.sample(names, len(names)):
            assert (handles[name].wait() == total).all()
            if half.included():
                found = handles[name + " of half"].wait()
                assert (found == sum(r + 1.0 for r in half.ranks)).all()
    ronde.remove_process_set(half)


def dropped() -> None:
    """What is pending on all ranks when the program ends is completed then."""
    x = mine()
    keep.append(x)
    ronde.allreduce_async_(x, ronde.Sum, "dropped")
    if rank == 0:
        ronde.allreduce_async(mine(), ronde.Sum, "of rank 0 alone")
    ronde.shutdown()
    assert (x == total).all()


keep: list[np.ndarray] = []


def leaves() -> None:
    """Rank 1 ends without the call that the others wait for."""
    if rank != 1:
        ronde.allreduce_async(mine(), name="missing").wait()


def raises() -> None:
    handles = [ronde.allreduce_async(mine(), name=str(i)) for i in range(50)]
    if rank == 1:
        raise ValueError("something of the user's")
    for handle in [*handles, ronde.allreduce_async(mine(), name="one more")]:
        handle.wait()


def killed() -> None:
    handles = [ronde.allreduce_async(mine(), name=str(i)) for i in range(50)]
    if rank == 1:
        os.kill(os.getpid(), 9)
    for handle in [*handles, ronde.allreduce_async(mine(), name="one more")]:
        handle.wait()


def stops() -> None:
    handles = [ronde.allreduce_async(mine(), name=str(i)) for i in range(50)]
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        for handle in [*handles, ronde.allreduce_async(mine(), name="one more")]:
            handle.wait()
    except ronde.StalledError as error:
        text = str(error)
        print(f"rank {rank} has found: {text}", flush=True)
        assert "allreduce" in text and "rank 1 is missing" in text
        os._exit(3)


def deviates() -> None:
    """Rank 1 submits a call more, a call fewer, and one of another shape, in the middle of 50."""
    for step in range(3):
        names = [str(i) for i in range(50)]
        if rank == 1:
            names[20:20] = ["more"] if step == 0 else []
            del names[30 : 30 + (step == 1)]
        handles = {}
        for name in names:
            odd = rank == 1 and step == 2 and name == "10"
            handles[name] = ronde.allreduce_async(mine(1000 + odd), ronde.Sum, name)
        wrong = [{"more"}, {"30"}, {"10"}][step]
        for name, handle in handles.items():
            try:
                assert (handle.wait() == total).all() and name not in wrong
            except (ronde.StalledError, ronde.MismatchError) as error:
                assert name in wrong, name
                assert f"allreduce '{name}'" in str(error), str(error)
                if step == 2:
                    assert isinstance(error, ronde.MismatchError) and "rank 1" in str(error)
                else:
                    lacking = r"\n  0,2 +not submitted" if step == 0 else r"\n  1 +not submitted"
                    assert re.search(lacking, str(error)), str(error)
        assert (ronde.allreduce_async(mine(), ronde.Sum, "work goes on").wait() == total).all()


class Descent:
    def step(self, grads: list[np.ndarray]) -> list[np.ndarray]:
        return grads


def ready() -> None:
    """Whatever is ready, and in which order: the same bits as without it."""
    opt = ronde.DistributedOptimizer(Descent())
    plain = ronde.DistributedOptimizer(Descent(), name="plain")
    own = random.Random(rank)
    drawn = np.random.default_rng(rank)
    sizes = [(10, 10), (5,), (1000,), (300, 300), (1,)]
    for step in range(10):
        grads = [drawn.standard_normal(each).astype(np.float32) for each in sizes]
        # All ranks begin with it in one step; after that, some may have nothing ready.
        for i in own.sample(range(len(grads)), own.randrange(0 if step else 1, len(grads) + 1)):
            opt.ready(i, grads[i])
        for a, b in zip(opt.step(grads), plain.step(grads), strict=True):
            assert a.tobytes() == b.tobytes()


class Halves:
    """A compressor in Python."""

    def compress(self, array: np.ndarray) -> tuple[np.ndarray, None]:
        return array.astype(np.float16), None

    def decompress(self, payload: np.ndarray, ctx: None) -> np.ndarray:
        return payload.astype(np.float32)


def compressed() -> None:
    """The same bits as blocking calls give, whatever is under way besides."""
    c = ronde.compression
    makers = [
        *(lambda: c.ErrorFeedback("int4"), lambda: c.ErrorFeedback(c.topk(0.1)), c.bf16, c.qsgd),
        *(lambda: c.ErrorFeedback(c.powersgd(2)), c.dgc, lambda: c.ErrorFeedback(Halves())),
        lambda: c.ErrorFeedback(c.shared_scale(4)),
    ]
    pairs = [(make(), make()) for make in makers]
    drawn = np.random.default_rng(rank)
    own = random.Random(rank)
    automatic = c.auto()
    for _ in range(4):
        inputs = [drawn.standard_normal((40, 50)).astype(np.float32) for _ in pairs]
        handles = {}
        for i in own.sample(range(len(pairs)), len(pairs)):
            mine = [inputs[i], inputs[i][:3]]
            handles[i] = ronde.grouped_allreduce_async(mine, name=f"{i}", compression=pairs[i][0])
        exact = ronde.allreduce_async(inputs[0], name="exact")
        chosen = ronde.allreduce_async(inputs[0], name="auto", compression=automatic)
        for i, (_, method) in enumerate(pairs):
            mine = [inputs[i], inputs[i][:3]]
            for a, b in zip(
                handles[i].wait(),
                ronde.grouped_allreduce(mine, name=f"{i}", compression=method),
                strict=True,
            ):
                assert a.tobytes() == b.tobytes(), method
        assert np.abs(exact.wait() - chosen.wait()).max() < 1.0
    x = inputs[0].copy()
    assert ronde.allreduce_async_(x, name="bf16", compression="bf16").wait() is x
    assert (x == ronde.allreduce(inputs[0], name="bf16", compression="bf16")).all()


def pinned() -> None:
    """One thread, the worker, runs on the core that was named."""
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/status")]
    cores = [each.partition("Cpus_allowed_list:")[2].split()[0] for each in threads]
    assert cores.count(os.environ["RONDE_ENGINE_CORE"]) == 1, cores
    assert (ronde.allreduce_async(mine(), ronde.Sum, "w").wait() == total).all()


def forked() -> None:
    """A child of rank 0, forked while a round is under way, can neither use nor disturb it."""
    ronde.allreduce_async(mine(), name="first").wait()
    if rank > 0:
        time.sleep(0.5)
    handle = ronde.allreduce_async(mine(), ronde.Sum, name="w")
    if rank == 0:
        handle.done()
        child = os.fork()
        if child == 0:
            for call in (handle.wait, handle.done, lambda: ronde.allreduce_async(mine())):
                try:
                    call()
                except ronde.RondeError as error:
                    assert "forked" in str(error)
                else:
                    os._exit(1)
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert (handle.wait() == total).all()


def daemons() -> None:
    """Threads that submit and wait when the program ends, on the same sets or on others."""
    some = ronde.add_process_set(range(size - 1))

    def submit_forever(process_set: ronde.ProcessSet, name: str) -> None:
        with contextlib.suppress(ronde.RondeError):
            while True:
                handles = [
                    ronde.allreduce_async(mine(), name=f"{name}{i}", process_set=process_set)
                    for i in range(5)
                ]
                for handle in handles[::-1]:
                    handle.wait()

    for process_set in (ronde.global_process_set, some):
        for name in "ab" if process_set.included() else "":
            arguments = process_set, name
            threading.Thread(target=submit_forever, args=arguments, daemon=True).start()
    time.sleep(0.3)


globals()[sys.argv[1]]()
print(f"rank {rank} is done", flush=True)

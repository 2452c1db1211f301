"""Parameters, states of optimizers, objects; who is who; the timeline; what needs no `init`."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ronde
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

import ronde.torch as hvd  # noqa: E402


def model(seed: int) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2, dtype=torch.float32)
    )


def same_everywhere(value: Any) -> None:
    """Bit by bit, types and devices of tensors included."""
    first = hvd.broadcast_object(value, 0)
    equal(first, value)


def equal(a: Any, b: Any) -> None:
    assert type(a) is type(b), (a, b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.device == b.device and torch.equal(a, b), (a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), (a, b)
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        list(map(equal, a, b))
    else:
        assert a == b, (a, b)


@on_ranks(1, 2)
def test_parameters() -> None:
    for root in range(hvd.size()):
        for make in [
            lambda net: net.state_dict(),
            lambda net: net.named_parameters(),
            lambda net: list(net.state_dict().items()),
            lambda net: dict(reversed(net.state_dict().items())),
            lambda net: list(net.state_dict().values()),
            lambda net: net.parameters(),
        ]:
            net = model(hvd.rank())
            hvd.broadcast_parameters(make(net), root_rank=root)
            same_everywhere(list(net.parameters()))
            assert torch.equal(net[0].weight, model(root)[0].weight)
    halves = {"a": torch.full((2,), float(hvd.rank()), dtype=torch.bfloat16)}
    halves["empty"] = torch.ones(0)
    hvd.broadcast_parameters(halves, 0)
    assert halves["a"].tolist() == [0.0, 0.0]
    tied = torch.nn.Linear(2, 2)
    hvd.broadcast_parameters({"a": tied.weight, "b": tied.weight}, 0)
    same_everywhere(tied.weight.detach())


@on_ranks(2)
def test_parameters_that_differ() -> None:
    rank = hvd.rank()
    for mine, text in [
        ({"a": torch.ones(2), **({"b": torch.ones(1)} if rank else {})}, "'b'"),
        ({"a": torch.ones(2 + rank)}, "'a'"),
        ({"a": torch.ones(2, dtype=[torch.float32, torch.float64][rank])}, "float64"),
    ]:
        with pytest.raises(hvd.HorovodInternalError, match=text):
            hvd.broadcast_parameters(mine, 0)
    for wrong in (3, torch.ones(2), [3], {"a": 3}, [("a", None)], [("a",), ("b",)]):
        with pytest.raises(ValueError, match="params"):
            hvd.broadcast_parameters(wrong, 0)
    with pytest.raises(ValueError, match="root_rank"):
        hvd.broadcast_parameters({"a": torch.ones(2)}, 2)
    with pytest.raises(ValueError, match="'weight'"):
        net = model(0)
        hvd.broadcast_parameters([*net[0].named_parameters(), *net[2].named_parameters()], 0)


def optimizers() -> list[Any]:
    """Of each class of torch, a function that makes one for a model of this type."""
    optim = torch.optim
    makers = [
        lambda ps: optim.SGD(ps, lr=0.1),
        lambda ps: optim.SGD(ps, lr=torch.tensor(0.1), momentum=0.9),
        lambda ps: optim.Adam(ps, lr=0.1, betas=(0.8, 0.9)),
        lambda ps: optim.Adam(ps, amsgrad=True),
        lambda ps: optim.AdamW(ps),
        lambda ps: optim.NAdam(ps),
        lambda ps: optim.RAdam(ps),
        lambda ps: optim.Adamax(ps),
        lambda ps: optim.Adadelta(ps),
        lambda ps: optim.Adagrad(ps),
        lambda ps: optim.RMSprop(ps, momentum=0.9, centered=True),
        lambda ps: optim.Rprop(ps),
        lambda ps: optim.ASGD(ps),
        lambda ps: optim.LBFGS(ps, max_iter=3),
    ]
    if hasattr(optim, "Adafactor"):
        makers.append(lambda ps: optim.Adafactor(ps))
    if hasattr(optim, "Muon"):
        makers.append(lambda ps: optim.Muon([p for p in ps if p.dim() == 2]))
    return makers


def stepped(optimizer: Any, steps: int) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(steps):

        def closure(step: int = step) -> Any:
            optimizer.zero_grad()
            loss = sum(((p.float() - step) ** 2).sum() for p in parameters)
            loss.backward()
            return loss

        optimizer.step(closure)


@on_ranks(2)
def test_the_state_of_every_optimizer() -> None:
    rank = hvd.rank()
    for dtype in (torch.float32, torch.bfloat16):
        for make in optimizers():
            for steps in [(2, 0), (0, 2), (2, 3)]:  # of the root, and of the other
                torch.manual_seed(7)
                parameters = [
                    torch.nn.Parameter(torch.randn(3, 2).to(dtype)),
                    torch.nn.Parameter(torch.randn(4).to(dtype)),
                ]
                optimizer = make(parameters)
                stepped(optimizer, steps[rank])
                before = copy.deepcopy(optimizer.state_dict())
                values = [p.detach().clone() for p in parameters]
                with torch.no_grad():
                    optimizer.param_groups[0]["lr"] = 0.5 + rank
                hvd.broadcast_optimizer_state(optimizer, root_rank=0)
                equal(values, [p.detach() for p in parameters])  # no step was made
                assert optimizer.param_groups[0]["lr"] == 0.5
                if rank == 0:
                    equal(before["state"], optimizer.state_dict()["state"])
                same_everywhere(optimizer.state_dict())
                hvd.broadcast_parameters(parameters, 0)
                stepped(optimizer, 1)  # and it goes on alike
                same_everywhere([p.detach() for p in parameters])
                same_everywhere(optimizer.state_dict())


class Moments(NamedTuple):
    count: int
    mean: Any


@on_ranks(2)
def test_options_that_are_tuples() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    [group] = optimizer.param_groups
    group["own"] = [Moments(hvd.rank(), torch.full((1,), float(hvd.rank()))), (2, None)]
    hvd.broadcast_optimizer_state(optimizer, 0)
    equal(optimizer.param_groups[0]["own"], [Moments(0, torch.zeros(1)), (2, None)])


@on_ranks(2)
def test_the_state_of_sparse_adam_and_groups() -> None:
    table = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters())
    if hvd.rank() == 1:
        table(torch.tensor([1, 2])).sum().backward()
        optimizer.step()
    hvd.broadcast_optimizer_state(optimizer, 1)
    same_everywhere(optimizer.state_dict())
    assert optimizer.state_dict()["state"]
    net = model(0)
    groups = [
        {"params": net[0].parameters(), "lr": 0.1 + hvd.rank()},
        {"params": net[2].parameters()},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0 + hvd.rank(), momentum=0.9)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    hvd.broadcast_optimizer_state(optimizer, 0, model=net)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]
    same_everywhere(optimizer.state_dict())
    schedule.step()
    assert optimizer.param_groups[1]["initial_lr"] == 1.0


@on_ranks(2)
def test_optimizers_that_differ() -> None:
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(1 + hvd.rank())]
    with pytest.raises(hvd.HorovodInternalError, match="parameters"):
        hvd.broadcast_optimizer_state(torch.optim.SGD(parameters, lr=0.1), 0)
    with pytest.raises(ValueError, match="optimizer"):
        hvd.broadcast_optimizer_state(parameters, 0)


@on_ranks(1, 2)
def test_objects() -> None:
    rank, size = hvd.rank(), hvd.size()
    mine = {"rank": rank, "x": torch.full((2,), float(rank)), "f": [1, (2, None)]}
    equal(
        hvd.broadcast_object(mine, size - 1),
        {**mine, "rank": size - 1, "x": torch.full((2,), size - 1.0)},
    )
    equal(hvd.broadcast_object(mine if rank == 0 else None, name="o")["rank"], 0)
    assert hvd.broadcast_object_fn(0)(rank) == 0
    every = hvd.allgather_object(["x" * rank, rank], name="all")
    assert every == [["x" * r, r] for r in range(size)]
    if rank == 0:
        assert hvd.broadcast_object(mine) is mine
    else:
        hvd.broadcast_object()
    with pytest.raises(ValueError, match="root_rank"):
        hvd.broadcast_object(1, root_rank=size)


@on_ranks(2)
def test_objects_that_cannot_be_sent() -> None:
    """Every rank raises an error, and takes part: the next objects are those of the next calls."""
    rank = hvd.rank()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    if rank == 1:
        optimizer.param_groups[0]["own"] = lambda: 0
    unsent = (lambda: 0) if rank == 1 else 0
    for call in [
        lambda: hvd.broadcast_object(unsent, 1),
        lambda: hvd.broadcast_object(unsent, 1, name="named"),
        lambda: hvd.allgather_object(unsent),
        lambda: hvd.broadcast_optimizer_state(optimizer, 1),
        lambda: ronde.broadcast_object(unsent, 1),
        lambda: ronde.allgather_object(unsent),
    ]:
        with pytest.raises(Exception) as caught:
            call()
        if rank == 1:
            assert not isinstance(caught.value, hvd.HorovodInternalError)
        else:
            assert isinstance(caught.value, hvd.HorovodInternalError)
            assert "rank 1 could not send its object: " in str(caught.value)
        assert hvd.broadcast_object({"lr": rank}, 1) == {"lr": 1}
    assert ronde.broadcast_object(rank, 1) == 1 and ronde.allgather_object(rank) == [0, 1]


@on_ranks(1)
def test_one_rank_by_itself() -> None:
    x = torch.tensor([1, -3, 5])
    for y in [
        hvd.allreduce(x),
        hvd.allreduce(x, op=hvd.Sum),
        hvd.allreduce(x.double(), op=hvd.Adasum).long(),
        hvd.allreduce_(x.clone(), op=hvd.Max),
        hvd.synchronize(hvd.allreduce_async(x, name="x")),
        hvd.grouped_allreduce([x])[0],
        hvd.allgather(x),
        hvd.broadcast(x, 0),
        hvd.alltoall(x),
        hvd.alltoall(x, [3])[0],
        hvd.reducescatter(x),
    ]:
        equal(y, x)
    assert hvd.join() == 0
    weights = torch.ones(2, requires_grad=True)
    hvd.allgather(hvd.allreduce(weights)).sum().backward()
    equal(weights.grad, torch.ones(2))


@on_ranks(1, 2)
def test_who_is_who() -> None:
    size = hvd.size()
    assert hvd.is_initialized()
    assert hvd.local_size() == size and hvd.local_rank() == hvd.rank()
    assert hvd.cross_size() == 1 and hvd.cross_rank() == 0
    assert hvd.is_homogeneous() is True
    assert isinstance(hvd.mpi_threads_supported(), bool)
    assert hvd.allgather_object(hvd.rank()) == list(range(size))


@on_ranks(2)
def test_a_timeline_restarts() -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = hvd.broadcast_object(folder, 0)
        for run in range(2):
            file = Path(folder, f"trace{run}.json")
            hvd.start_timeline(str(file), mark_cycles=True)
            hvd.allreduce(torch.ones(2), name=f"gradient {run}")
            with pytest.raises(hvd.HorovodInternalError, match="under way"):
                hvd.start_timeline(str(file))
            hvd.stop_timeline()
            if hvd.rank() == 0:
                events = json.loads(file.read_text())
                assert any(f"gradient {run}" in str(event) for event in events)
        with pytest.raises(hvd.HorovodInternalError, match="timeline"):
            hvd.stop_timeline()
        hvd.barrier()


@on_ranks(2)
def test_a_second_job() -> None:
    """Jobs of other ranks, one after the other."""
    rank = hvd.rank()
    forgotten = hvd.allreduce_async(torch.ones(1), name="forgotten")
    hvd.shutdown()
    assert not hvd.is_initialized() and hvd.synchronize(forgotten) is None
    with pytest.raises(ValueError, match=r"hvd\.init"):
        hvd.allreduce(torch.ones(1))
    assert hvd.global_process_set.size() is None
    hvd.init(comm=[rank])
    assert hvd.size() == 1 and hvd.allreduce(torch.ones(1), op=hvd.Sum).item() == 1.0
    hvd.init()  # does nothing
    hvd.shutdown()
    with pytest.raises(ValueError, match="comm"):
        hvd.init(comm=[1 - rank])
    from mpi4py import MPI

    hvd.init(comm=MPI.COMM_WORLD, process_sets=[hvd.ProcessSet([0]), [1]])
    assert hvd.get_process_set_ids_and_ranks() == {0: [0, 1], 1: [0], 2: [1]}
    hvd.shutdown()
    os.environ.update(HOROVOD_FUSION_THRESHOLD="1024", HOROVOD_STALL_CHECK_TIME_SECONDS="30")
    hvd.init([0, 1], process_sets="dynamic")
    assert hvd.size() == 2 and ronde.context.world().settings.fusion_bytes == 1024


# --- in one process, without a launcher


def alone(program: str, **variables: str) -> str:
    environment = {**os.environ, **variables}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


BEFORE = """
import torch
import ronde.torch as hvd
from ronde.torch import mpi_ops, functions, compression

x = torch.ones(2)
optimizer = torch.optim.SGD([torch.nn.Parameter(x)], lr=0.1)
calls = [
    hvd.rank, hvd.size, hvd.local_rank, hvd.local_size, hvd.cross_rank, hvd.cross_size,
    hvd.is_homogeneous, hvd.mpi_threads_supported, hvd.join, hvd.barrier, hvd.stop_timeline,
    hvd.get_process_set_ids_and_ranks,
    lambda: hvd.allreduce(x), lambda: hvd.allreduce_(x), lambda: hvd.allreduce_async(x),
    lambda: hvd.grouped_allreduce([x]), lambda: hvd.allgather(x), lambda: hvd.broadcast(x, 0),
    lambda: hvd.broadcast_(x, 0), lambda: hvd.alltoall(x), lambda: hvd.reducescatter(x),
    lambda: hvd.sparse_allreduce_async(x.to_sparse(), "s", hvd.Sum),
    lambda: hvd.broadcast_object(1), lambda: hvd.allgather_object(1),
    lambda: hvd.broadcast_parameters({"a": x}, 0),
    lambda: hvd.broadcast_optimizer_state(optimizer, 0),
    lambda: hvd.add_process_set([0]), lambda: hvd.remove_process_set(hvd.ProcessSet([0])),
    lambda: hvd.start_timeline("file"),
]
for i, call in enumerate(calls):
    try:
        call()
    except ValueError as error:
        assert "hvd.init" in str(error), error
    else:
        raise AssertionError(f"{i} raises nothing")
world = hvd.global_process_set
assert (world.rank(), world.size(), world.included()) == (None, None, None)
assert not hvd.is_initialized()
assert hvd.mpi_built() and hvd.mpi_enabled()
assert not any([hvd.gloo_built(), hvd.gloo_enabled(), hvd.ddl_built(), hvd.ccl_built(), hvd.rocm_built()])
assert isinstance(hvd.nccl_built(), int) and isinstance(hvd.cuda_built(), bool)
assert issubclass(hvd.HorovodInternalError, RuntimeError)
hvd.shutdown()
"""


def test_before_init_all_raise_an_error() -> None:
    alone(BEFORE)


FORBIDDEN = """
import os
import torch
import ronde.torch as hvd
hvd.init()
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
calls = [lambda: hvd.broadcast_optimizer_state(optimizer, 0)]
if os.environ["RONDE_OBJECTS"] == "refuse":
    calls += [lambda: hvd.broadcast_object(1), lambda: hvd.allgather_object(1)]
else:
    assert hvd.broadcast_object((1, 2)) == [1, 2]
for call in calls:
    try:
        call()
    except hvd.HorovodInternalError as error:
        assert "RONDE_OBJECTS" in str(error), error
    else:
        raise AssertionError("it raises nothing")
"""


@pytest.mark.parametrize("form", ["json", "refuse"])
def test_objects_that_are_forbidden(form: str) -> None:
    alone(FORBIDDEN, RONDE_OBJECTS=form)


VARIABLES = """
import os
import ronde
import ronde.torch as hvd
os.environ["HOROVOD_FUSION_THRESHOLD"] = "much"
try:
    hvd.init()
except ValueError as error:
    print(error)
os.environ["HOROVOD_FUSION_THRESHOLD"] = "2048"
hvd.init()
settings = ronde.context.world().settings
print(settings.fusion_bytes, settings.core.stall_warning, settings.core.stall_timeout)
print(settings.timeline)
"""


def test_variables_of_horovod(tmp_path: Path) -> None:
    file = str(tmp_path / "trace.json")
    said = alone(
        VARIABLES,
        HOROVOD_STALL_CHECK_TIME_SECONDS="7",
        HOROVOD_STALL_SHUTDOWN_TIME_SECONDS="70",
        RONDE_STALL_TIMEOUT="90",
        HOROVOD_TIMELINE=file,
    )
    assert "RONDE_FUSION_BYTES is from HOROVOD_FUSION_THRESHOLD" in said
    assert "2048 7.0 90.0" in said and file in said
    assert said.count("HOROVOD_FUSION_THRESHOLD is taken as RONDE_FUSION_BYTES=2048") == 1
    assert "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS" not in said  # RONDE_STALL_TIMEOUT is set


def test_without_torch() -> None:
    program = """
import sys
sys.modules["torch"] = None
try:
    import ronde.torch
except ImportError as error:
    print(error)
"""
    assert 'pip install "ronde[torch]"' in alone(program)


def test_ronde_does_not_import_torch() -> None:
    alone("import sys, ronde; ronde.allreduce; assert 'torch' not in sys.modules")

"""`torch.distributed` with backend="ronde": every collective, message and group, against mathematics."""

from __future__ import annotations

import datetime
import inspect
import socket
import time
import warnings
import weakref
from typing import Any

import pytest
import ronde
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

import ronde.torch.distributed  # noqa: E402
import torch.distributed as dist  # noqa: E402
from ronde import own_sets  # noqa: E402
from torch.distributed import ReduceOp  # noqa: E402

DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8),
]
MOVED = [*DTYPES, torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn]


def begin() -> None:
    warnings.simplefilter("ignore", FutureWarning)  # names that torch 2.13 has replaced
    dist.init_process_group("ronde")


def end() -> None:
    dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank()


def size() -> int:
    return dist.get_world_size()


def filled(number: float, dtype: Any = torch.float32, shape: tuple[int, ...] = (3, 2)) -> Any:
    """A tensor whose elements tell where they came from, and where they stood."""
    count = torch.Size(shape).numel()
    return (torch.arange(count).reshape(shape) % 2 + number).to(dtype)


def equal(found: Any, wanted: Any) -> bool:
    if found.dtype.itemsize == 1 and found.dtype.is_floating_point:
        found, wanted = found.float(), wanted.float()
    return found.dtype == wanted.dtype and torch.equal(found, wanted)


# Who is who.


@on_ranks(1, 2)
def test_ranks_and_the_store_come_from_ronde() -> None:
    assert (rank(), size()) == (ronde.rank(), ronde.size())
    assert dist.get_backend() == "ronde"
    store = dist.distributed_c10d._get_default_store()
    store.set(f"from {rank()}", f"{rank()}")
    assert [store.get(f"from {each}") for each in range(size())] == [
        str(each).encode() for each in range(size())
    ]


@on_ranks(1, 2)
def test_other_ranks_than_those_of_the_job_are_refused() -> None:
    for url in (f"ronde://?rank={rank() + 1}", f"env://?rank={rank()}&world_size={size() + 1}"):
        with pytest.raises(RuntimeError, match="for MPI it is"):
            next(dist.rendezvous(url))
    store, *found = next(dist.rendezvous(f"env://?rank={rank()}&world_size={size()}"))
    assert store is not None and found == [rank(), size()]
    ronde.barrier()  # the others find the store of rank 0 until then


@on_ranks(2)
def test_the_address_of_the_store_may_be_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = ronde.broadcast_object(server.getsockname()[1])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MASTER_ADDR", "localhost")
        environment.setenv("MASTER_PORT", str(port))
        store, *found = next(dist.rendezvous("ronde://"))
    assert (store.host, store.port) == ("localhost", port) and found == [rank(), size()]
    ronde.barrier()


# Collectives that compute.


@on_ranks(1, 2, 3)
def test_all_reduce_of_every_operation_and_type() -> None:
    ranks = range(size())
    for dtype in DTYPES:
        for op, combine in (
            (ReduceOp.SUM, lambda parts: parts.sum(0)),
            (ReduceOp.MIN, lambda parts: parts.amin(0)),
            (ReduceOp.MAX, lambda parts: parts.amax(0)),
            (ReduceOp.PRODUCT, lambda parts: parts.prod(0)),
        ):
            x = filled(rank() + 1, dtype)
            dist.all_reduce(x, op)
            wanted = combine(torch.stack([filled(each + 1, torch.float64) for each in ranks]))
            assert equal(x, wanted.to(dtype)), (dtype, op)


@on_ranks(2, 3)
def test_averages_of_floats_integers_and_complex_numbers() -> None:
    mean = (size() - 1) / 2
    x = filled(rank(), torch.bfloat16)
    dist.all_reduce(x, ReduceOp.AVG)
    assert equal(x, filled(mean, torch.bfloat16))
    # The average of integers is cut off, toward zero.
    x = torch.tensor([rank(), -rank(), 5])
    dist.all_reduce(x, ReduceOp.AVG)
    assert x.tolist() == [int(mean), -int(mean), 5]
    # Their sum may be wider than they are.
    parts = torch.full((size(), 2), 200, dtype=torch.uint8)
    x, output = parts[0].clone(), torch.empty(2, dtype=torch.uint8)
    dist.all_reduce(x, ReduceOp.AVG)
    dist.reduce_scatter_tensor(output, parts, ReduceOp.AVG)
    assert x.tolist() == output.tolist() == [200, 200]
    x = torch.full((2,), 120 + rank(), dtype=torch.int8)
    dist.reduce(x, 1, ReduceOp.AVG)
    assert x.tolist() == [int(120 + mean) if rank() == 1 else 120 + rank()] * 2
    x = torch.full((2,), complex(rank(), -rank()))
    dist.all_reduce(x, ReduceOp.AVG)
    assert x.tolist() == [complex(mean, -mean)] * 2


@on_ranks(2)
def test_sums_of_complex_numbers_and_premultiplied_ones() -> None:
    x = torch.full((2, 2), complex(1, rank()), dtype=torch.complex128)
    dist.all_reduce(x)
    assert (x == complex(2, 1)).all()
    factor = dist._make_nccl_premul_sum(0.5)
    if not hasattr(factor, "factor"):  # in older torch
        with pytest.raises(RuntimeError, match="factor"):
            dist.all_reduce(x, factor)
        return
    x = torch.full((3,), 3.0 + rank())
    dist.all_reduce(x, factor)
    assert x.tolist() == [3.5] * 3


@on_ranks(2)
def test_and_and_or_of_truths() -> None:
    given = torch.tensor([True, False, rank() == 0])
    for op, wanted in (
        (ReduceOp.BAND, [True, False, False]),
        (ReduceOp.BOR, [True, False, True]),
        (ReduceOp.BXOR, [False, False, True]),
    ):
        x = given.clone()
        dist.all_reduce(x, op)
        assert x.tolist() == wanted, op


@on_ranks(2)
def test_bits_of_integers_are_combined() -> None:
    for dtype in (torch.uint8, torch.int32):
        for op, wanted in ((ReduceOp.BAND, 4), (ReduceOp.BOR, 7), (ReduceOp.BXOR, 3)):
            x = torch.tensor([6 if rank() == 0 else 5, 0], dtype=dtype)
            dist.all_reduce(x, op)
            assert x.tolist() == [wanted, 0], (dtype, op)


@on_ranks(2)
def test_tensors_that_are_not_contiguous_are_reduced_in_place() -> None:
    base = torch.zeros(4, 6)
    x = base.t()[1:5:2]
    x += rank() + torch.arange(8.0).reshape(x.shape)
    dist.all_reduce(x)
    assert torch.equal(x, 1 + 2 * torch.arange(8.0).reshape(2, 4))
    assert base.sum() == x.sum()
    x = torch.arange(6.0).reshape(2, 3)[:, 1]
    dist.broadcast(x, 0)
    assert x.tolist() == [1, 4]
    scalar, empty = torch.tensor(2.0), torch.zeros(0, 3)
    for each in (scalar, empty):
        dist.all_reduce(each)
    assert scalar == 4 and empty.shape == (0, 3)


@on_ranks(2)
def test_tensors_that_need_gradients() -> None:
    x = torch.ones(2, requires_grad=True)
    dist.all_reduce(x)
    assert x.tolist() == [2, 2] and x.requires_grad


@on_ranks(2, 3)
def test_sparse_tensors_are_added_up() -> None:
    dense = torch.zeros(4, 2)
    dense[rank()] = rank() + 1
    dense[3] = 1
    x = dense.to_sparse(1)
    dist.all_reduce(x)
    dist.all_reduce(dense)
    assert x.is_sparse and torch.equal(x.to_dense(), dense)
    with pytest.raises(RuntimeError, match="SUM"):
        dist.all_reduce(x, ReduceOp.MAX)


@on_ranks(2, 3)
def test_reduce_to_every_rank() -> None:
    for root in range(size()):
        for op, wanted in ((ReduceOp.SUM, sum(range(size()))), (ReduceOp.MAX, size() - 1)):
            x = torch.full((2, 2), float(rank()))
            dist.reduce(x, root, op)
            assert (x == (wanted if rank() == root else rank())).all()


@on_ranks(1, 2, 3)
def test_reduce_scatter_of_lists_and_of_one_tensor() -> None:
    total = sum(range(size()))
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.complex64):
        parts = [filled(10 * each + rank(), dtype, (2, 2)) for each in range(size())]
        wanted = filled(0, dtype, (2, 2)) * size() + 10 * rank() * size() + total
        output = torch.empty(2, 2, dtype=dtype)
        dist.reduce_scatter(output, parts)
        assert equal(output, wanted.to(dtype))
        output = torch.empty(2, 2, dtype=dtype)
        dist.reduce_scatter_tensor(output, torch.cat(parts))
        assert equal(output, wanted.to(dtype))
    # Parts of several sizes.
    uneven = [torch.full((each + 1,), float(rank())) for each in range(size())]
    output = torch.empty(rank() + 1)
    dist.reduce_scatter(output, uneven)
    assert output.tolist() == [total] * (rank() + 1)


# Collectives that move data.


@on_ranks(2, 3)
def test_broadcast_from_every_rank_of_every_type() -> None:
    for dtype in MOVED:
        for root in range(size()):
            x = filled(rank(), torch.float32).to(dtype)
            dist.broadcast(x, root)
            assert equal(x, filled(root).to(dtype)), dtype


@on_ranks(1, 2, 3)
def test_all_gather_of_lists_and_into_one_tensor() -> None:
    for dtype in MOVED:
        x = filled(rank()).to(dtype)
        outputs = [torch.zeros(3, 2).to(dtype) for _ in range(size())]
        dist.all_gather(outputs, x)
        for each, output in enumerate(outputs):
            assert equal(output, filled(each).to(dtype)), dtype
        whole = torch.zeros(3 * size(), 2).to(dtype)
        dist.all_gather_into_tensor(whole, x)
        assert all(equal(o, filled(i).to(dtype)) for i, o in enumerate(whole.split(3)))
    uneven = [torch.zeros(each + 1) for each in range(size())]
    dist.all_gather(uneven, torch.full((rank() + 1,), float(rank())))
    assert [each.tolist() for each in uneven] == [[each] * (each + 1) for each in range(size())]


@on_ranks(2, 3)
def test_gather_and_scatter() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.complex64, torch.bool):
        for root in range(size()):
            here = rank() == root
            outputs = [torch.zeros(3, 2).to(dtype) for _ in range(size())] if here else None
            dist.gather(filled(rank()).to(dtype), outputs, root)
            if here:
                assert all(equal(o, filled(i).to(dtype)) for i, o in enumerate(outputs))
            parts = [filled(each).to(dtype) for each in range(size())] if here else None
            output = torch.zeros(3, 2).to(dtype)
            dist.scatter(output, parts, root)
            assert equal(output, filled(rank()).to(dtype))


@on_ranks(1, 2, 3)
def test_all_to_all() -> None:
    n = size()
    outputs = [torch.zeros(2, dtype=torch.bfloat16) for _ in range(n)]
    dist.all_to_all(
        outputs, [torch.full((2,), 10.0 * rank() + each).bfloat16() for each in range(n)]
    )
    assert [o[0].item() for o in outputs] == [10 * each + rank() for each in range(n)]
    x = torch.arange(2.0 * n) + 100 * rank()
    output = torch.zeros(2 * n)
    dist.all_to_all_single(output, x)
    assert output.tolist() == [100 * each + 2 * rank() + i for each in range(n) for i in (0, 1)]
    # Rank r sends each + 1 rows to rank each.
    rows = torch.cat([torch.full((each + 1, 2), float(rank())) for each in range(n)])
    output = torch.zeros(n * (rank() + 1), 2)
    dist.all_to_all_single(output, rows, [rank() + 1] * n, [each + 1 for each in range(n)])
    assert output[:, 0].tolist() == [each for each in range(n) for _ in range(rank() + 1)]


@on_ranks(2)
def test_objects() -> None:
    objects: list[Any] = [None] * size()
    dist.all_gather_object(objects, {"rank": rank()})
    assert objects == [{"rank": each} for each in range(size())]
    objects = [rank(), "text"] if rank() == 0 else [None, None]
    dist.broadcast_object_list(objects, 0)
    assert objects == [0, "text"]
    into: list[Any] = [None]
    dist.scatter_object_list(into, ["a", "b"] if rank() == 0 else None, 0)
    assert into == ["ab"[rank()]]
    gathered: list[Any] | None = [None] * size() if rank() == 1 else None
    dist.gather_object(rank(), gathered, 1)
    assert gathered == ([0, 1] if rank() == 1 else None)


@on_ranks(2)
def test_coalesced_calls() -> None:
    group = dist.group.WORLD
    xs = [torch.full((2,), float(rank())), torch.full((3,), rank(), dtype=torch.int64)]
    group.allreduce_coalesced(xs).wait()
    assert [x.tolist() for x in xs] == [[1, 1], [1, 1, 1]]
    outputs = [torch.zeros(2), torch.zeros(4)]
    group.allgather_into_tensor_coalesced(
        outputs, [torch.full((1,), float(rank())), torch.full((2,), 5.0 + rank())]
    ).wait()
    assert [o.tolist() for o in outputs] == [[0, 1], [5, 5, 6, 6]]
    outputs = [torch.zeros(1), torch.zeros(2)]
    group.reduce_scatter_tensor_coalesced(outputs, [torch.ones(2), torch.ones(4)]).wait()
    assert [o.tolist() for o in outputs] == [[2], [2, 2]]
    a, b = torch.ones(2), torch.ones(3)
    with dist._coalescing_manager(group, async_ops=True) as manager:
        dist.all_reduce(a, group=group)
        dist.all_reduce(b, group=group)
    manager.wait()
    assert a.tolist() == [2, 2] and b.tolist() == [2, 2, 2]
    lists = [[torch.zeros(1), torch.zeros(2)] for _ in range(size())]
    group.allgather_coalesced(lists, [torch.ones(1) * rank(), torch.ones(2) * rank()]).wait()
    assert [[each.tolist() for each in one] for one in lists] == [[[0], [0, 0]], [[1], [1, 1]]]


@on_ranks(2)
def test_barriers() -> None:
    dist.barrier()
    assert dist.barrier(async_op=True).wait()
    dist.group.WORLD.monitored_barrier(datetime.timedelta(seconds=30))


# Works.


@on_ranks(2)
def test_a_work_completes_when_its_call_does() -> None:
    x = torch.full((1 << 16,), float(rank()))
    if rank() == 1:
        dist.recv(torch.empty(1), 0)  # the call of rank 0 waits until then
    work = dist.all_reduce(x, async_op=True)
    if rank() == 0:
        assert not work.is_completed() and not work.is_success() and work.exception() is None
        with pytest.raises(dist.DistBackendError):
            work.wait(datetime.timedelta(milliseconds=20))
        dist.send(torch.ones(1), 1)
    assert work.wait() and work.is_completed() and work.is_success()
    assert (x == 1).all() and work.result()[0] is x


@on_ranks(2)
def test_outputs_are_written_when_a_work_is_completed() -> None:
    def completed(work: Any) -> bool:
        while not work.is_completed():
            time.sleep(1e-4)
        return True

    column = torch.ones(4, 2)[:, 1]
    assert completed(dist.all_reduce(column, async_op=True)) and column.tolist() == [2] * 4
    outputs = [torch.zeros(4, 2)[:, 1] for _ in range(2)]
    assert completed(dist.all_gather(outputs, column, async_op=True))
    assert [each.tolist() for each in outputs] == [[2] * 4] * 2
    here = rank() == 1
    assert completed(dist.gather(column * 3, outputs if here else None, 1, async_op=True))
    assert [each.tolist() for each in outputs] == [[6 if here else 2] * 4] * 2
    parts = [torch.full((4,), 7.0 + each) for each in range(2)] if here else None
    assert completed(dist.scatter(column, parts, 1, async_op=True))
    assert column.tolist() == [7 + rank()] * 4


@on_ranks(2)
def test_works_that_nobody_waits_for_keep_no_tensors() -> None:
    x = torch.ones(8)
    cpu = torch.device("cpu")
    with dist._coalescing_manager(dist.group.WORLD, cpu, async_ops=True) as manager:
        dist.broadcast(x, 0, async_op=True)
    manager.wait()
    alive = weakref.ref(x)
    del x, manager
    assert alive() is None


@on_ranks(2)
def test_futures_complete_and_chain() -> None:
    x = torch.ones(3)
    future = dist.all_reduce(x, async_op=True).get_future()
    assert future.wait()[0].tolist() == [2] * 3 and future.done()
    chained = dist.all_reduce(x, async_op=True).get_future().then(lambda f: f.value()[0] * 2)
    assert chained.then(lambda f: f.value() + 1).wait().tolist() == [9] * 3
    works = [dist.all_reduce(torch.ones(2), async_op=True) for _ in range(3)]
    together = torch.futures.collect_all([work.get_future() for work in works])  # waits in C++
    assert [f.value()[0].tolist() for f in together.wait()] == [[2, 2]] * 3


@on_ranks(2)
def test_a_mismatch_is_an_error_of_that_work_alone() -> None:
    work = dist.all_reduce(torch.ones(2 + rank()), async_op=True)
    with pytest.raises(RuntimeError, match="allreduce"):
        work.wait()
    assert work.is_completed() and not work.is_success()
    assert isinstance(work.exception(), ronde.MismatchError)
    with pytest.raises(RuntimeError):
        work.get_future().wait()
    with pytest.raises(ronde.MismatchError):
        dist.all_gather([torch.zeros(1 + rank())] * 2, torch.zeros(1 + rank()))
    x = torch.ones(2)
    dist.all_reduce(x)
    assert x.tolist() == [2, 2]


@on_ranks(2)
def test_wrong_arguments_raise_before_anything_is_sent() -> None:
    group = dist.group.WORLD
    with pytest.raises(ValueError, match="each of 2 ranks"):
        group.allgather([[torch.zeros(2)]], [torch.zeros(2)])
    with pytest.raises(ValueError, match="does not fit"):
        group._allgather_base(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="does not fit"):
        group._reduce_scatter_base(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match="do not add up"):
        dist.all_to_all_single(torch.zeros(4), torch.zeros(4), [2, 2], [1, 2])
    with pytest.raises(RuntimeError, match="float8"):
        dist.all_reduce(torch.zeros(2).to(torch.float8_e4m3fn))
    with pytest.raises(RuntimeError, match="complex"):
        group.allreduce([torch.zeros(2, dtype=torch.complex64)], ReduceOp.MAX)
    with pytest.raises(RuntimeError, match="BOR and BXOR"):
        dist.all_reduce(torch.zeros(2), ReduceOp.BXOR)
    with pytest.raises(TypeError, match="dense"):
        dist.broadcast(torch.eye(2).to_sparse(), 0)
    dist.barrier()


# Messages.


@on_ranks(2, 3)
def test_messages_around_a_ring() -> None:
    after, before = (rank() + 1) % size(), (rank() - 1) % size()
    for dtype in (torch.float32, torch.bfloat16, torch.complex64):
        for count in (0, 5, 1 << 20):
            given = torch.full((count,), rank()).to(dtype)
            came = torch.zeros(count, 2).to(dtype)[:, 0]  # not contiguous
            works = dist.batch_isend_irecv(
                [dist.P2POp(dist.isend, given, after), dist.P2POp(dist.irecv, came, before)]
            )
            for work in works:
                work.wait()
            assert (came == before).all()


@on_ranks(2)
def test_messages_come_in_order_by_tag_and_from_any_rank() -> None:
    if rank() == 0:
        for tag in (7, 3, 7):
            dist.send(torch.tensor([tag, 0]), 1, tag=tag)
        dist.send(torch.tensor([1, 1]), 1, tag=7)
    else:
        first, second, third = (torch.zeros(2, dtype=torch.int64) for _ in range(3))
        works = [dist.irecv(x, 0, tag=7) for x in (first, second, third)]
        x = torch.zeros(2, dtype=torch.int64)
        assert dist.recv(x, tag=3) == 0 and x.tolist() == [3, 0]
        for work in reversed(works):  # in whatever order they are waited for
            work.wait()
        assert [each.tolist() for each in (first, second, third)] == [[7, 0], [7, 0], [1, 1]]
        assert works[0].source_rank() == 0


@on_ranks(3)
def test_a_receive_delays_only_those_that_may_take_its_message() -> None:
    x, y = torch.zeros(1), torch.zeros(1)
    if rank() == 0:
        dist.recv(x, 2)
        dist.send(torch.full((1,), 5.0), 2)
    elif rank() == 1:
        dist.send(torch.full((1,), 6.0), 2)
    else:
        first, second = dist.irecv(x, 0), dist.irecv(y, 1)
        second.wait()  # rank 0 sends later
        dist.send(y, 0)
        first.wait()
        assert (x.item(), y.item()) == (5, 6)
    # A receive from any rank waits for those before it, and those after it wait for it.
    if rank() == 2:
        xs = [torch.zeros(1) for _ in range(3)]
        works = [dist.irecv(xs[0], 0), dist.irecv(xs[1]), dist.irecv(xs[2], 0)]
        for work in works:
            work.wait()
        assert [each.item() for each in xs] == [0, 1, 2]
    elif rank() == 0:
        for each in range(3):
            dist.send(torch.full((1,), float(each)), 2)


@on_ranks(2)
def test_messages_move_while_their_ranks_wait_for_a_collective() -> None:
    big = torch.ones(1 << 20)
    if rank() == 0:
        dist.send(big, 1)  # ends when it is received
        dist.barrier()
    else:
        work = dist.irecv(big.zero_(), 0)
        dist.barrier()
        work.wait()
        assert (big == 1).all()


@on_ranks(2)
def test_messages_of_another_length_and_wrong_peers_raise() -> None:
    if rank() == 0:
        dist.send(torch.zeros(8), 1)
    else:
        with pytest.raises(RuntimeError, match="32 bytes came"):
            dist.recv(torch.zeros(2), 0)
    with pytest.raises(ValueError):
        dist.send(torch.zeros(1), rank())
    with pytest.raises(ValueError):
        dist.group.WORLD.send([torch.zeros(1)], 5)
    with pytest.raises(ValueError, match="tag"):
        dist.group.WORLD.send([torch.zeros(1)], 1 - rank(), -1)


@on_ranks(2)
def test_a_receive_without_a_send_has_a_deadline() -> None:
    if rank() == 0:
        work = dist.irecv(torch.zeros(1), 1, tag=99)
        with pytest.raises(dist.DistBackendError, match="receive from rank 1"):
            work.wait(datetime.timedelta(milliseconds=50))
    dist.barrier()
    if rank() == 1:
        dist.send(torch.zeros(1), 0, tag=99)


# Groups.


@on_ranks(3, 4)
def test_groups_overlap_and_work_by_themselves() -> None:
    first, last = dist.new_group([0, 1]), dist.new_group([1, size() - 1])
    alone = [dist.new_group([each]) for each in range(size())]
    for group, members in ((first, (0, 1)), (last, (1, size() - 1)), (alone[rank()], (rank(),))):
        if rank() in members:
            x = torch.full((2,), float(rank()))
            dist.all_reduce(x, group=group)
            assert x.tolist() == [sum(members)] * 2
            assert dist.get_process_group_ranks(group) == list(members)
    if rank() == 1:  # roots are ranks of the job
        dist.broadcast(torch.ones(1), 1, group=last)
    elif rank() == size() - 1:
        x = torch.zeros(1)
        dist.broadcast(x, 1, group=last)
        assert x == 1
    if rank() == size() - 1:
        dist.send(torch.full((1,), 5.0), 1, group=last)
    elif rank() == 1:
        x = torch.zeros(1)
        assert dist.recv(x, group=last) == size() - 1 and x == 5
    for group in (last, first):
        if group is not dist.GroupMember.NON_GROUP_MEMBER:
            dist.destroy_process_group(group)
    dist.barrier()


@on_ranks(3)
def test_groups_in_another_order_are_refused() -> None:
    if "sort_ranks" not in inspect.signature(dist.new_group).parameters:
        return
    if rank() < 2:
        with pytest.raises(ValueError, match="ascending"):
            dist.new_group([1, 0], sort_ranks=False)
    else:
        dist.new_group([1, 0], sort_ranks=False)
    dist.barrier()


@on_ranks(4)
def test_process_sets_of_members_alone() -> None:
    # Pairs, in other orders on disjoint members; only the members come.
    pair = [2 * (rank() // 2), 2 * (rank() // 2) + 1]
    one, other = [rank()], pair
    sets = [
        own_sets.add(ronde.ProcessSet(ranks)) for ranks in ((one, other), (other, one))[rank() // 2]
    ]
    for each in sets:
        total = ronde.allreduce(torch.tensor([float(rank())]), ronde.Sum, process_set=each)
        assert total.item() == sum(each.ranks)
        assert ronde.allreduce_async(1.0, ronde.Sum, process_set=each).wait() == each.size()
        assert each.included() and each.ranks[each.rank()] == rank()
    # Those that all ranks make are numbered as before, and there may be several of the same ranks.
    common = ronde.add_process_set([0, 3])
    again = own_sets.add(ronde.ProcessSet(pair))
    ronde.barrier(process_set=again)
    ronde.remove_process_set(common)
    own_sets.remove(again)
    own_sets.remove(again)  # nothing
    with pytest.raises(ronde.RondeError):
        ronde.barrier(process_set=again)
    with pytest.raises(ValueError, match="not a member"):
        own_sets.add(ronde.ProcessSet([(rank() + 1) % 4]))
    with pytest.raises(ValueError, match="no rank 9"):
        own_sets.add(ronde.ProcessSet([rank(), 9]))
    # The rest is closed by shutdown.


@on_ranks(4)
def test_a_mesh_of_two_by_two() -> None:
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "columns"))
    x = torch.full((1,), float(rank()))
    dist.all_reduce(x, group=mesh["columns"].get_group())
    assert x.item() == sum(each for each in range(4) if each // 2 == rank() // 2)
    x = torch.full((1,), float(rank()))
    dist.all_reduce(x, group=mesh["rows"].get_group())
    assert x.item() == sum(each for each in range(4) if each % 2 == rank() % 2)


@on_ranks(2)
def test_works_are_kept_until_nobody_will_wait() -> None:
    """As torch before 2.7 needs it."""
    from ronde.torch.distributed import work

    x, group = torch.ones(4), dist.group.WORLD
    before, work._must_keep = work._must_keep, True
    work._kept.clear()  # of other tests
    work._once.clear()
    try:
        for _ in range(3):
            dist.all_reduce(x)
            dist.all_to_all([torch.ones(2), torch.ones(2)], [x[:2], x[2:]])
            dist.all_reduce(x, async_op=True).get_future().wait()
            polled = dist.barrier(async_op=True)
            while not polled.is_completed():
                pass
        assert not work._kept
        several = [group.allreduce_coalesced([x, x + 1]) for _ in range(3 * work._FEW)]
        assert len(work._kept) == len(several)
        for each in several:
            each.wait()
        assert len(work._kept) == work._FEW  # C++ could wait for the second tensor
        for each in several[-work._FEW :]:
            each.wait()
        assert not work._kept and not work._once
    finally:
        work._must_keep = before

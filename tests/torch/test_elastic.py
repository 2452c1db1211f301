"""Training that starts again after an error, its states, and the sampler."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import ronde
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")
elastic = pytest.importorskip("ronde.torch.elastic")


def model_and_optimizer() -> tuple[Any, Any]:
    """Other values on each rank, and an optimizer that has a state."""
    torch.manual_seed(ronde.rank())
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    step(model, optimizer)
    return model, optimizer


def step(model: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()


def values(model: Any, optimizer: Any) -> list[Any]:
    states = optimizer.state_dict()["state"].values()
    tensors = [*model.state_dict().values(), *(x for state in states for x in state.values())]
    return [torch.as_tensor(each).tolist() for each in tensors]


@on_ranks(2)
def test_attributes_are_saved_and_restored() -> None:
    state = elastic.ObjectState(epoch=1, losses=[0.5])
    state.epoch += 1
    state.losses.append(0.25)
    state.restore()
    assert (state.epoch, state.losses) == (1, [0.5])
    state.epoch = 3
    state.losses.append(0.125)
    state.commit()
    state.losses.append(0.0)
    state.restore()
    state.losses.append(1.0)
    state.restore()  # once more: what was restored is a copy
    assert (state.epoch, state.losses, state.commits) == (3, [0.5, 0.125], 1)


@on_ranks(2)
def test_sync_gives_the_values_of_rank_0() -> None:
    model, optimizer = model_and_optimizer()
    state = elastic.TorchState(model, optimizer, epoch=ronde.rank() + 4, note=None)
    before = ronde.broadcast_object(values(model, optimizer))
    state.sync()
    assert (state.epoch, state.note) == (4, None)
    assert values(model, optimizer) == before
    step(model, optimizer)
    state.epoch = 9
    state.restore()  # to what was synchronised
    assert state.epoch == 4 and values(model, optimizer) == before


@on_ranks(2)
def test_a_model_and_an_optimizer_are_restored_in_place() -> None:
    model, optimizer = model_and_optimizer()
    state = elastic.TorchState(model=model, optimizer=optimizer)
    assert state.model is model and state.optimizer is optimizer
    before = values(model, optimizer)
    for _ in range(2):
        step(model, optimizer)
        assert values(model, optimizer) != before
        state.restore()
        assert values(model, optimizer) == before
    other = torch.nn.Linear(2, 1)
    state.model = other
    weight = other.weight.tolist()
    torch.nn.init.zeros_(other.weight)
    state.restore()
    assert state.model is other and other.weight.tolist() == weight


@on_ranks(2)
def test_schedulers_and_scalers_keep_to_their_optimizer() -> None:
    model, optimizer = model_and_optimizer()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    state = elastic.TorchState(model, optimizer, scheduler=scheduler)
    step(model, optimizer)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.05
    state.restore()
    assert state.scheduler is scheduler and scheduler.optimizer is optimizer
    assert scheduler.last_epoch == 0 and optimizer.param_groups[0]["lr"] == 0.1


@on_ranks(2)
def test_names_that_a_state_has_itself_are_refused() -> None:
    with pytest.raises(ValueError, match="commit, save"):
        elastic.TorchState(save=1, commit=2)


@on_ranks(2)
def test_run_starts_again_from_the_last_commit() -> None:
    model, optimizer = model_and_optimizer()
    state = elastic.TorchState(model, optimizer, step=0)
    seen: list[Any] = []
    state.register_reset_callbacks([lambda: seen.append("first"), lambda: seen.append("second")])

    @elastic.run
    def train(state: Any, last: int, *, name: str) -> str:
        while state.step < last:
            seen.append(state.step)
            step(model, optimizer)
            state.step += 1
            if state.step == 3 and "first" not in seen:
                raise ronde.RondeError("on all ranks")
            state.commit()
        return name

    assert train(state, 4, name="done") == "done"
    assert train.__name__ == "train"
    assert seen == [0, 1, 2, "first", "second", 2, 3]
    assert optimizer.state_dict()["state"][0]["step"] == 5  # one before, one lost with the error
    same = ronde.allgather_object(values(model, optimizer))
    assert all(each == same[0] for each in same)


@on_ranks(2)
def test_run_survives_calls_that_differ() -> None:
    starts: list[int] = []

    @elastic.run
    def train(state: Any) -> float:
        starts.append(state.step)
        return ronde.allreduce(torch.ones(1 + ronde.rank() // len(starts))).sum().item()

    assert train(elastic.ObjectState(step=0)) == 1.0
    assert starts == [0, 0]


def require_begins_anew(fail: Callable[[Any], None]) -> None:
    """`fail` is called once, between `backward` and `step`."""
    import ronde.torch as hvd

    model = torch.nn.Linear(2, 1)
    optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), 0.1))
    starts: list[int] = []

    @elastic.run
    def train(state: Any) -> None:
        starts.append(state.step)
        while state.step < 3:
            model(torch.ones(1, 2)).sum().backward()
            if len(starts) == 1 and state.step == 1:
                fail(optimizer)
            optimizer.step()
            optimizer.zero_grad()
            state.step += 1
            state.commit()

    before = ronde.broadcast_object(model.weight.tolist())
    train(elastic.TorchState(model, optimizer, step=0))
    assert len(starts) == 2
    torch.testing.assert_close(model.weight, torch.tensor(before) - 0.3)


@on_ranks(2)
def test_a_distributed_optimizer_begins_anew() -> None:
    def fail(_: Any) -> None:
        raise ronde.RondeError("on all ranks")

    def count_once_more(optimizer: Any) -> None:
        optimizer._ronde.way.step += ronde.rank()  # as if this rank had made a step more

    require_begins_anew(fail)
    require_begins_anew(count_once_more)


@contextmanager
def stall_timeout(seconds: str, **arguments: Any) -> Iterator[None]:
    ronde.shutdown()
    os.environ["RONDE_STALL_TIMEOUT"] = seconds
    ronde.init(**arguments)
    try:
        yield
    finally:
        del os.environ["RONDE_STALL_TIMEOUT"]
        ronde.shutdown()
        ronde.init()


@on_ranks(2)
def test_run_survives_a_late_rank_with_its_process_sets() -> None:
    mine = ronde.ProcessSet([1])
    with stall_timeout("4", process_sets=[mine]):
        starts: list[int] = []

        @elastic.run
        def train(state: Any) -> float:
            starts.append(state.step)
            if len(starts) == 1 and ronde.rank() == 1:
                time.sleep(6)  # rank 0 waits for 4 s, and for 4 s more where it starts again
            return ronde.allreduce(1.0, ronde.Sum)

        assert train(elastic.ObjectState(step=7)) == 2.0
        assert starts == [7, 7]
        assert mine.included() == (ronde.rank() == 1)
        if mine.included():
            assert ronde.allreduce(1.0, ronde.Sum, process_set=mine) == 1.0


@on_ranks(2)
def test_an_error_that_comes_again_and_again_is_raised() -> None:
    starts: list[int] = []

    @elastic.run
    def train(state: Any) -> None:
        starts.append(state.step)
        if len(starts) == 2:
            state.step += 1
            state.commit()
        raise ronde.RondeError(f"number {len(starts)}")

    with pytest.raises(ronde.RondeError, match="number 4"):
        train(elastic.ObjectState(step=0))
    assert starts == [0, 0, 1, 1]


@on_ranks(2)
def test_other_errors_are_raised_at_once() -> None:
    @elastic.run
    def train(state: Any) -> None:
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        train(elastic.ObjectState())


@on_ranks(2)
def test_one_rank_can_ask_all_for_a_new_start() -> None:
    state = elastic.ObjectState(step=0)
    starts: list[int] = []
    state.register_reset_callbacks([lambda: starts.append(-1)])

    @elastic.run
    def train(state: Any) -> int:
        starts.append(state.step)
        while state.step < 3:
            state.step += 1
            if len(starts) == 1 and state.step == 2 and ronde.rank() == 1:
                state.on_hosts_updated(0.0, None)
            state.commit()
        return state.step

    assert train(state) == 3
    assert starts == [0, -1, 2]


@on_ranks(2)
def test_an_interrupt_may_leave_the_states_as_they_are() -> None:
    class Counted(elastic.ObjectState):
        def sync(self) -> None:
            syncs.append(self.step)
            super().sync()

    syncs: list[int] = []

    @elastic.run
    def train(state: Any) -> None:
        state.step += 1
        if state.step < 4:
            raise elastic.HostsUpdatedInterrupt(skip_sync=state.step == 1)

    train(Counted(step=0))
    assert syncs == [0, 2, 3]


def sampler_of(length: int, **options: Any) -> Any:
    return elastic.ElasticSampler(range(length), **options)


@on_ranks(2, 3)
def test_the_samples_of_all_ranks_are_the_dataset() -> None:
    for length in (0, 1, 2, 12, 13):
        for shuffle in (False, True):
            sampler = sampler_of(length, shuffle=shuffle)
            shares = ronde.allgather_object(list(sampler))
            assert {len(share) for share in shares} == {len(sampler)}
            assert len(sampler) == -(-length // ronde.size())
            assert {index for share in shares for index in share} == set(range(length))
            if not shuffle:
                assert shares[0] == list(range(0, length, ronde.size()))


@on_ranks(2)
def test_each_epoch_and_seed_has_an_order_of_its_own() -> None:
    sampler, other = sampler_of(40), sampler_of(40, seed=7)
    orders = [list(sampler), list(other)]
    for epoch in (1, 2):
        sampler.record_batch(0, 4)
        sampler.set_epoch(epoch)
        assert len(sampler) == 20
        orders.append(list(sampler))
    assert len({tuple(order) for order in orders}) == 4
    sampler.set_epoch(0)
    assert list(sampler) == orders[0]


@on_ranks(2)
def test_what_was_processed_before_a_new_start_does_not_come_again() -> None:
    sampler = sampler_of(20)
    state = elastic.TorchState(sampler=sampler)
    sampler.set_epoch(1)
    seen = sampler.get_indices(0, 3)
    sampler.record_batch(0, 3)
    state.commit()
    lost = sampler.get_indices(1, 3)
    sampler.record_batch(1, 3)
    state.restore()
    state.sync()
    before = {index for share in ronde.allgather_object(seen) for index in share}
    after = {index for share in ronde.allgather_object(list(sampler)) for index in share}
    assert before | after == set(range(20)) and not before & after
    assert set(lost) <= after and sampler.epoch == 1
    loaded = torch.utils.data.DataLoader(range(20), batch_size=4, sampler=sampler)
    assert torch.cat(list(loaded)).tolist() == list(sampler)


@on_ranks(2)
def test_the_state_of_a_sampler_is_a_copy() -> None:
    sampler = sampler_of(6, shuffle=False)
    saved = sampler.state_dict()
    sampler.record_indices([0, 1])
    assert saved == {"epoch": 0, "processed_indices": set()}
    other = sampler_of(6, shuffle=False)
    other.load_state_dict(sampler.state_dict())
    assert other.remaining_indices == [2, 3, 4, 5]
    assert list(other) == [2, 3, 4, 5][ronde.rank() :: 2]


def test_run_needs_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ronde.context, "_world", None)  # another test may have begun one
    with pytest.raises(ValueError, match=r"init\(\)"):
        elastic.run(lambda state: None)(None)

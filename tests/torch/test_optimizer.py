"""`DistributedOptimizer` besides training: when gradients are final, which are reduced, what stays."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

import ronde  # noqa: E402
import ronde.torch as hvd  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402


def params(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]


def distributed(parameters: list[nn.Parameter], **options: Any) -> Any:
    return hvd.DistributedOptimizer(torch.optim.SGD(parameters, 1.0), **options)


def mean(value: float) -> float:
    """Of `value * (rank + 1)`."""
    return value * (ronde.size() + 1) / 2


def give(param: torch.Tensor, value: float) -> None:
    """Makes the gradient value * (rank + 1), by a backward pass."""
    (param.sum() * value * (ronde.rank() + 1)).backward()


def require(param: torch.Tensor, value: float) -> None:
    assert param.grad is not None
    assert torch.equal(param.grad.to_dense(), torch.full_like(param, value)), param.grad


# When gradients are final.


@on_ranks(1, 2)
def test_gradients_are_final_when_backward_returns() -> None:
    [w] = params((3, 4))
    optimizer = distributed([w])
    assert w.grad is None
    for step in range(1, 4):
        give(w, step)
        require(w, mean(step))
        optimizer.step()
        optimizer.zero_grad()
        assert w.grad is None


@on_ranks(2)
def test_only_the_last_of_several_passes_reduces() -> None:
    [w] = params((3,))
    optimizer = distributed([w], backward_passes_per_step=3)
    for _ in range(2):
        give(w, 1.0)
        give(w, 1.0)
        require(w, 2.0 * (ronde.rank() + 1))
        give(w, 1.0)
        require(w, mean(3.0))
        optimizer.step()
        optimizer.zero_grad()
    optimizer.set_backward_passes_per_step(1)
    give(w, 1.0)
    require(w, mean(1.0))


@on_ranks(2)
def test_a_step_reduces_what_is_left_over() -> None:
    [w] = params((3,))
    optimizer = distributed([w], backward_passes_per_step=4)
    give(w, 1.0)
    optimizer.step()
    assert torch.equal(w.detach(), torch.full((3,), -mean(1.0)))
    optimizer.zero_grad()
    give(w, 1.0)
    optimizer.synchronize()
    require(w, mean(1.0))


@on_ranks(2)
def test_gradients_that_are_not_zeroed_accumulate() -> None:
    """As on one process: the reduced gradient of the step before stays in the sum."""
    [w] = params((3,))
    optimizer = distributed([w])
    give(w, 1.0)
    optimizer.step()
    give(w, 1.0)
    require(w, mean(2.0))
    optimizer.step()


@on_ranks(2)
def test_two_losses_with_other_parameters() -> None:
    """The first gradient is final already when the second loss comes, also where they share a bucket."""
    for op, factor in ((ronde.Average, 1.0), (ronde.Sum, float(ronde.size()))):
        a, b = params((3,), (4,))
        optimizer = distributed([a, b], op=op)
        give(torch.cat([a, b]), 1.0)  # in one bucket from now on
        optimizer.step()
        optimizer.zero_grad()
        for _ in range(2):
            give(a, 1.0)
            give(b, 2.0)
            require(a, factor * mean(1.0))
            require(b, factor * mean(2.0))
            optimizer.step()
            optimizer.zero_grad()


@on_ranks(2)
def test_a_pass_too_many() -> None:
    [w] = params((3,))
    optimizer = distributed([w])
    give(w, 1.0)
    with pytest.raises(
        AssertionError, match=r"0\.0 was computed more than backward_passes_per_step"
    ):
        give(w, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    give(w, 1.0)
    w.grad = None  # begins anew
    give(w, 1.0)
    require(w, mean(1.0))


@on_ranks(2)
def test_zeroing_between_backward_and_step() -> None:
    [w] = params((3,))
    optimizer = distributed([w])
    give(w, 1.0)
    with pytest.raises(AssertionError, match="was called after loss"):
        optimizer.zero_grad()
    optimizer.step()
    optimizer.zero_grad()
    give(w, 1.0)
    optimizer.synchronize()
    optimizer.zero_grad()  # allowed, as it says
    give(w, 1.0)
    require(w, mean(1.0))


@on_ranks(2)
def test_steps_that_a_scaler_skips() -> None:
    """Clipping by value makes an overflow finite, and the scaler has seen it before."""
    clippings: list[Callable[[Any], Any]] = [
        lambda _: None,
        lambda w: nn.utils.clip_grad_value_(w, 1.0),
        lambda w: nn.utils.clip_grad_norm_(w, 1.0),
    ]
    for clip in clippings:
        [w] = params((3,))
        optimizer = distributed([w])
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for step in range(3):
            optimizer.zero_grad()
            scale = float("inf") if step == 1 and ronde.rank() == 1 else 1.0
            scaler.scale(w.sum() * scale).backward()
            scaler.unscale_(optimizer)
            clip([w])
            scaler.step(optimizer)
            scaler.update()
        assert optimizer._ronde.way.step == 2
        optimizer.zero_grad()


@on_ranks(2)
def test_the_loss_of_a_closure_is_averaged() -> None:
    [w] = params((3,))
    optimizer = distributed([w])

    def closure() -> Any:
        optimizer.zero_grad()
        give(w, 1.0)
        return torch.tensor(float(ronde.rank()))

    assert float(optimizer.step(closure)) == (ronde.size() - 1) / 2
    assert float(optimizer.step(closure=lambda: (closure(), 2.0 * ronde.rank())[1])) == 1.0
    assert optimizer.step(lambda: (closure(), None)[1]) is None
    optimizer.zero_grad()
    optimizer = distributed([w], op=ronde.Adasum)
    assert float(optimizer.step(closure)) == (ronde.size() - 1) / 2
    optimizer.zero_grad()


@on_ranks(2)
def test_synchronize_and_skip_synchronize() -> None:
    [w] = params((3,))
    optimizer = distributed([w])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            give(w, 1.0)
            optimizer.synchronize()
            optimizer.step()
            optimizer.zero_grad()
        assert [str(each.message)[:35] for each in seen] == ["optimizer.step() called without opt"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        give(w, 1.0)
        optimizer.synchronize()
        require(w, mean(1.0))
        with optimizer.skip_synchronize():
            optimizer.step()


# Which parameters have gradients.


@on_ranks(2, 3)
def test_gradients_that_some_ranks_have() -> None:
    """The others contribute zeros, and get the result; what none has stays None."""
    some, none, late, every = params((3,), (4,), (2, 5), (6,))
    optimizer = distributed([some, none, late, every])
    for step in range(4):
        mine = [every]
        if ronde.rank() == step % ronde.size():
            mine.append(some)
        if ronde.rank() == 1 and step >= 2:
            mine.append(late)
        torch.cat([each.flatten() for each in mine]).sum().backward()
        require(every, 1.0)
        torch.testing.assert_close(some.grad, torch.full((3,), 1 / ronde.size()))
        assert none.grad is None
        assert (late.grad is not None) == (step >= 2)
        optimizer.step()
        optimizer.zero_grad()
    assert not none.detach().any()


@on_ranks(2)
def test_a_rank_without_any_backward() -> None:
    [w] = params((3,))
    optimizer = distributed([w])
    for step in range(3):
        if ronde.rank() == step % 2:
            w.sum().backward()
        optimizer.step()
        require(w, 0.5)
        optimizer.zero_grad()
    optimizer.step()  # of nobody
    assert w.grad is None
    assert torch.equal(w.detach(), torch.full((3,), -1.5))


@on_ranks(2)
def test_a_rank_without_backward_after_gradients_were_dropped() -> None:
    [w] = params((3,))
    optimizer = distributed([w])
    give(w, 1.0)
    optimizer.synchronize()
    optimizer.zero_grad()
    for _ in range(2):
        if ronde.rank() == 0:
            w.sum().backward()
        optimizer.step()
        require(w, 0.5)
        optimizer.zero_grad()


@on_ranks(2)
def test_frozen_parameters() -> None:
    a, b = params((3,), (4,))
    b.requires_grad_(False)
    optimizer = distributed([a, b])
    for step in range(6):
        b.requires_grad_(step in (2, 3, 5))
        a.requires_grad_(step != 3)
        assert b.is_leaf and a.is_leaf
        give(torch.cat([a, b]), 1.0)
        for param in (a, b):
            if param.requires_grad:
                require(param, mean(1.0))
            else:
                assert param.grad is None
        optimizer.step()
        optimizer.zero_grad()


@on_ranks(2)
def test_gradients_that_a_frozen_parameter_has_kept() -> None:
    """They stay, and what the bucket holds does not grow."""
    a, b = params((3,), (4,))
    optimizer = distributed([a, b], op=ronde.Sum)
    give(torch.cat([a, b]), 1.0)
    optimizer.step()
    b.requires_grad_(False)
    for _ in range(3):
        a.grad = None
        give(a, 2.0)
        require(a, 2 * mean(2.0))
        require(b, 2 * mean(1.0))
        optimizer.step()
    optimizer.zero_grad()
    for _ in range(140):  # a float32 would be infinite by then
        give(a, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    b.requires_grad_(True)
    give(torch.cat([a, b]), 1.0)
    require(b, 2 * mean(1.0))


@on_ranks(2)
def test_a_parameter_of_a_bucket_is_unfrozen() -> None:
    """The bucket waits for its gradient again."""
    a, b = params((3,), (4,))
    optimizer = distributed([a, b], groups=1)
    for frozen in (False, True, False, False):
        a.requires_grad_(not frozen)
        x = (a * 1.0) * 1.0  # so that the gradient of b comes first
        ((x.sum() + b.sum()) * (ronde.rank() + 1)).backward()
        require(b, mean(1.0))
        if not frozen:
            require(a, mean(1.0))
        optimizer.step()
        optimizer.zero_grad()


@on_ranks(2)
def test_gradients_that_are_dropped_between_passes() -> None:
    """As those that the loss of a generator leaves in its critic: passes are counted from None on."""
    [w] = params((3,))
    optimizer = distributed([w], backward_passes_per_step=2)
    for _ in range(3):
        give(w, 1.0)
        give(w, 1.0)
        require(w, mean(2.0))
        optimizer.step()
        w.grad = None
        give(w, 5.0)
        w.grad = None


@on_ranks(2)
def test_parameters_that_are_added() -> None:
    a, b = params((3,), (4,))
    optimizer = distributed([a])
    give(a, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.add_param_group({"params": [b], "lr": 2.0})
    give(torch.cat([a, b]), 1.0)
    require(a, mean(1.0))
    require(b, mean(1.0))
    optimizer.step()
    assert torch.equal(b.detach(), torch.full((4,), -2.0 * mean(1.0)))


@on_ranks(2)
def test_several_optimizers() -> None:
    """In one pass, as of Muon and AdamW for one model, and in turns."""
    a, b, c = params((3,), (4,), (5,))
    first, second = distributed([a]), distributed([b, c])
    for _ in range(2):
        give(torch.cat([a, b, c]), 1.0)
        for param in (a, b, c):
            require(param, mean(1.0))
        for optimizer in (first, second):
            optimizer.step()
            optimizer.zero_grad()
    give(b, 1.0)
    require(b, mean(1.0))
    second.step()
    give(a, 1.0)
    require(a, mean(1.0))
    first.step()


@on_ranks(2, 3)
def test_several_optimizers_whose_gradients_some_ranks_have() -> None:
    a, b, c = params((3,), (4,), (5,))
    optimizers = [distributed([each]) for each in (a, b)]
    optimizers.append(distributed([c], backward_passes_per_step=2))
    for step in range(4):
        mine = [[a, b], [b], [a, c], []][(ronde.rank() + step) % 4]
        if mine:
            sum((param * 1.0).sum() for param in mine).backward()
        if step % 2:
            optimizers.reverse()
        for optimizer in optimizers:
            optimizer.step()
        for param, member in ((a, (0, 2)), (b, (0, 1)), (c, (2,))):
            count = sum((rank + step) % 4 in member for rank in range(ronde.size()))
            if count:
                torch.testing.assert_close(param.grad, torch.full_like(param, count / ronde.size()))
            else:
                assert param.grad is None
        for optimizer in optimizers:
            optimizer.zero_grad()


@on_ranks(3)
def test_optimizers_of_sets_that_overlap() -> None:
    """They have numbers of their own in each set."""
    sets = [ronde.add_process_set([0, 1]), ronde.add_process_set([1, 2])]
    weights = params((3,), (4,), (5,))
    for members, w in zip([*sets, hvd.global_process_set], weights, strict=True):
        if not members.included():
            continue
        optimizer = distributed([w], process_set=members)
        for _ in range(2):
            give(w, 1.0)
            torch.testing.assert_close(
                w.grad, torch.full_like(w, sum(members.ranks) / members.size() + 1)
            )
            optimizer.step()
            optimizer.zero_grad()
    for members in sets:
        ronde.remove_process_set(members)


@on_ranks(2)
def test_an_optimizer_replaces_another() -> None:
    """Gradients of a parameter are reduced once, for the latest; for one that is gone not at all."""
    [w] = params((3,))
    before = distributed([w])
    optimizer = distributed([w])
    give(w, 1.0)
    require(w, mean(1.0))
    optimizer.step()
    del before, optimizer
    gc.collect()
    w.grad = None
    give(w, 1.0)
    require(w, 1.0 * (ronde.rank() + 1))


@on_ranks(2)
def test_sparse_gradients() -> None:
    for as_dense in (False, True):
        table = nn.Embedding(10, 3, sparse=True).double()
        other = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        optimizer = hvd.DistributedOptimizer(
            torch.optim.SGD([table.weight, other], 1.0), sparse_as_dense=as_dense
        )
        for step in range(3):
            rows = torch.tensor([ronde.rank(), 5, 5])
            if step == 2 and ronde.rank() == 1:
                other.sum().backward()  # this rank has no sparse gradient
            else:
                (table(rows).sum() + other.sum()).backward()
            assert table.weight.grad.is_sparse != as_dense
            grad = table.weight.grad.to_dense()
            expected = torch.zeros(10, 3, dtype=torch.float64)
            for rank in range(ronde.size()):
                if step < 2 or rank != 1:
                    expected[rank] += 1 / ronde.size()
                    expected[5] += 2 / ronde.size()
            assert torch.equal(grad, expected)
            require(other, 1.0)
            optimizer.step()
            optimizer.zero_grad()


@on_ranks(2)
def test_gradients_that_are_sparse_on_some_ranks() -> None:
    """They are sparse then, but for those that have been dense."""
    for groups in (None, 1):
        w, other = nn.Parameter(torch.zeros(6, 2)), nn.Parameter(torch.zeros(2))
        optimizer = distributed([w, other], groups=groups)
        for step, is_dense in enumerate([False, False, True, False, False]):
            loss = nn.functional.embedding(torch.tensor([1, 1, 4]), w, sparse=True).sum()
            if is_dense or ronde.rank() == 1:
                loss = w.sum() * 2.0  # on one rank dense
            (loss + other.sum()).backward()
            assert w.grad.is_sparse == (step < 2)
            expected = torch.full((6, 2), 2.0 if is_dense else 1.0)
            if not is_dense:
                expected[1] += 1.0
                expected[4] += 0.5
            assert torch.equal(w.grad.to_dense(), expected)
            require(other, 1.0)
            optimizer.step()
            optimizer.zero_grad()


@on_ranks(3)
def test_a_process_set() -> None:
    """Ranks outside step by their own gradients."""
    members = ronde.add_process_set([0, 2])
    [w] = params((3,))
    optimizer = distributed([w], process_set=members)
    give(w, 1.0)
    require(w, 2.0)  # the mean of 1 and 3, and that of rank 1
    optimizer.step()
    optimizer.zero_grad()
    if ronde.rank() == 1:  # alone
        give(w, 1.0)
        optimizer.synchronize()
        with optimizer.skip_synchronize():
            optimizer.step()
    ronde.remove_process_set(members)


# Passes of special kinds.


@on_ranks(2)
def test_checkpoints() -> None:
    """Reentrant ones run a backward pass within another, whose gradients follow later."""
    for reentrant in (False, True):
        for first_is_frozen in (False, True):
            torch.manual_seed(1)
            layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4)).double()
            layers[0].requires_grad_(not first_is_frozen)
            reference = copy.deepcopy(layers)
            optimizer = hvd.DistributedOptimizer(
                torch.optim.SGD(layers.parameters(), 0.1), layers.named_parameters()
            )
            for _ in range(3):
                x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
                y = layers[0](x)
                for layer in layers[1:3]:
                    y = checkpoint(layer, y, use_reentrant=reentrant)
                (layers[3](y).sum() * (ronde.rank() + 1)).backward()
                z = x.detach()
                for layer in reference:
                    z = layer(z)
                z.sum().backward()
                for ours, theirs in zip(layers.parameters(), reference.parameters(), strict=True):
                    if ours.requires_grad:
                        torch.testing.assert_close(ours.grad, theirs.grad * mean(1.0))
                optimizer.step()
                optimizer.zero_grad()
                reference.zero_grad()
                with torch.no_grad():
                    for ours, theirs in zip(
                        layers.parameters(), reference.parameters(), strict=True
                    ):
                        theirs.copy_(ours)


@on_ranks(2)
def test_a_graph_of_the_gradients() -> None:
    """Gradients of gradients: `create_graph` makes `.grad` part of a graph."""
    [w] = params((3,))
    optimizer = distributed([w])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (w.exp().sum() * (ronde.rank() + 1)).backward(create_graph=True)
    require(w, mean(1.0))
    assert not w.grad.requires_grad
    optimizer.step()


@on_ranks(2)
def test_gradients_that_are_not_contiguous() -> None:
    """As of a transposed product, and of an expanded number."""
    w = nn.Parameter(torch.zeros(3, 4))
    strided = nn.Parameter(torch.zeros(6, 4)[::2])  # no dense memory
    transposed = nn.Parameter(torch.zeros(5, 3).t())
    optimizer = distributed([w, strided, transposed])
    for _ in range(2):
        x = torch.arange(12.0).view(4, 3).t() * (ronde.rank() + 1)
        ((w * x).sum() + (strided * x).sum() + transposed.sum()).backward()
        expected = torch.arange(12.0).view(4, 3).t() * mean(1.0)
        assert torch.equal(w.grad, expected)
        assert torch.equal(strided.grad, expected)
        require(transposed, 1.0)
        optimizer.step()
        optimizer.zero_grad()


@on_ranks(2)
def test_a_parameter_without_elements() -> None:
    a, b = params((0, 3), (2,))
    optimizer = distributed([a, b])
    for _ in range(2):
        (a.sum() + b.sum()).backward()
        require(b, 1.0)
        assert a.grad.shape == (0, 3)
        optimizer.step()
        optimizer.zero_grad()


@on_ranks(2)
def test_long_gradients() -> None:
    """They are copied in another way, and a parameter may be larger than a bucket."""
    weights = params((3 << 20,), (3 << 20, 3), (5,))
    optimizer = distributed(weights)
    for _ in range(2):
        sum(w.sum() * (ronde.rank() + 1) for w in weights).backward()  # expanded, not contiguous
        for w in weights:
            require(w, mean(1.0))
        optimizer.step()
        optimizer.zero_grad()
        sum((w * w).sum() * (ronde.rank() + 1) for w in weights).backward()
        for w in weights:
            require(w, 2.0 * w.detach().flatten()[0].item() * mean(1.0))
        optimizer.step()
        optimizer.zero_grad()


@on_ranks(2)
def test_an_error_in_backward_that_is_caught() -> None:
    """On all ranks alike: what is under way is finished, and training goes on."""
    a, b = params((3,), (4,))
    optimizer = distributed([a, b], groups=2)

    def fail(_: torch.Tensor) -> None:
        raise ArithmeticError

    for step in range(3):
        if step == 1:
            x = a * 1.0
            x.register_hook(fail)
            with pytest.raises(ArithmeticError):
                (x.sum() + b.exp().log().sum()).backward()
            optimizer.synchronize()
            optimizer.zero_grad()
        give(torch.cat([a, b]), 1.0)
        require(a, mean(1.0))
        require(b, mean(1.0))
        optimizer.step()
        optimizer.zero_grad()


@on_ranks(2)
def test_types_do_not_mix() -> None:
    kinds = torch.float16, torch.bfloat16, torch.float32, torch.float64
    weights = [nn.Parameter(torch.zeros(5, dtype=dtype)) for dtype in kinds]
    optimizer = distributed(weights)
    for _ in range(2):
        sum(w.double().sum() * (ronde.rank() + 1) for w in weights).backward()
        for w in weights:
            assert w.grad.dtype == w.dtype
            require(w, mean(1.0))
        optimizer.step()
        optimizer.zero_grad()


# The object stays what it was.


@on_ranks(1)
def test_the_object_stays_the_same() -> None:
    [w] = params((3,))
    optimizer = torch.optim.Adam([w], 0.1)
    state = copy.deepcopy(optimizer.state_dict())
    shown = repr(optimizer)
    wrapped = hvd.DistributedOptimizer(optimizer)
    assert wrapped is optimizer
    assert isinstance(wrapped, torch.optim.Adam)
    assert type(wrapped).__name__ == "Adam"
    assert repr(wrapped) == shown
    assert wrapped.state_dict() == state
    with pytest.raises(TypeError, match="DistributedOptimizer already"):
        hvd.DistributedOptimizer(wrapped)


@on_ranks(2)
def test_hooks_of_a_step_run_once() -> None:
    [w] = params((3,))
    optimizer = torch.optim.SGD([w], 1.0)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer = hvd.DistributedOptimizer(optimizer)
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    for _ in range(2):
        optimizer.load_state_dict(optimizer.state_dict())
        give(w, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert calls == ["before", "after"] * 2


@on_ranks(2)
def test_a_step_that_calls_the_step_of_its_base() -> None:
    """Hooks of both are called. An error in a step does not matter to the next."""

    class Derived(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if self.fails:
                raise ArithmeticError
            return super().step(closure)

    for op, moved in ((ronde.Average, 3 * mean(1.0)), (ronde.Adasum, None)):
        [w] = params((3,))
        torch.optim.SGD([w], 1.0)  # from now on the base has hooks as well
        optimizer = hvd.DistributedOptimizer(Derived([w], 1.0), op=op)
        for optimizer.fails in (False, True, False, False):
            give(w, 1.0)
            if optimizer.fails:
                with pytest.raises(ArithmeticError):
                    optimizer.step()
            else:
                optimizer.step()
            optimizer.zero_grad()
        assert optimizer._ronde.way.step == (3 if op == ronde.Adasum else 4)
        if moved is not None:
            assert torch.equal(w.detach(), torch.full((3,), -moved))


@on_ranks(2)
def test_copies_are_ordinary_optimizers() -> None:
    [w] = params((3,))
    optimizer = hvd.DistributedOptimizer(torch.optim.Adam([w], 0.1, betas=(0.8, 0.9)))
    give(w, 1.0)
    optimizer.step()
    copies: list[Callable[[], Any]] = [
        lambda: copy.deepcopy(optimizer),
        lambda: pickle.loads(pickle.dumps(optimizer)),
    ]
    for make in copies:
        other = make()
        assert type(other) is torch.optim.Adam
        assert not hasattr(other, "synchronize")
        assert other.param_groups[0]["betas"] == (0.8, 0.9)
        mine, theirs = optimizer.state_dict()["state"], other.state_dict()["state"]
        assert torch.equal(mine[0]["exp_avg"], theirs[0]["exp_avg"])
        [param] = other.param_groups[0]["params"]
        if param.grad is None:
            param.grad = torch.ones(3)
        other.step()  # without the other ranks
    optimizer.zero_grad()
    give(w, 1.0)
    require(w, mean(1.0))


# Arguments.


@on_ranks(1)
def test_names() -> None:
    a, b = params((3,), (4,))
    with pytest.raises(ValueError, match="Found duplicates: twice"):
        distributed([a, b], named_parameters=[("twice", a), ("twice", b)])
    with pytest.raises(ValueError, match=r"not named: parameter 1 of group 0, \[4\]"):
        distributed([a, b], named_parameters=[("a", a)])
    with pytest.raises(ValueError, match="sequence of tuples"):
        distributed([a, b], named_parameters=[a, b])
    distributed([a], named_parameters=iter([("a", a), ("b", b)]))  # more than needed


@on_ranks(1)
def test_wrong_arguments() -> None:
    [w] = params((3,))
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"op": ronde.Max}, ValueError, "op must be Average, Sum or Adasum"),
        ({"op": ronde.Sum, "gradient_predivide_factor": 2.0}, ValueError, "predivide"),
        ({"backward_passes_per_step": 0}, ValueError, "must be at least 1, not 0"),
        ({"backward_passes_per_step": 1.5}, TypeError, "whole number"),
        ({"groups": -1}, ValueError, "non-negative integer or a list of list"),
        ({"groups": [w]}, ValueError, "non-negative integer or a list of list"),
        ({"compression": "int5"}, ValueError, "is not a compressor"),
        ({"process_set": [0]}, TypeError, "process_set must be"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            distributed([w], **options)
    with pytest.raises(TypeError, match="must be one of torch"):
        hvd.DistributedOptimizer(object())
    with pytest.raises(ValueError, match="complex64"):
        distributed(params((3,), dtype=torch.complex64))
    give(w, 1.0)  # no hook of those that failed is left
    require(w, 1.0)


@on_ranks(2)
def test_groups() -> None:
    weights = params((3,), (4,), (5,), (6,), (2, 2))
    for groups in ([[weights[0], weights[3]], [weights[1], weights[4]]], 2, 5, 100):
        for param in weights:
            param.grad = None
        optimizer = distributed(weights, groups=groups)
        for step in range(3):
            mine = weights if step else weights[:4]
            sum(param.sum() * (ronde.rank() + 1) for param in mine).backward()
            for param in mine:
                require(param, mean(1.0))
            assert (weights[4].grad is not None) == (step > 0)
            optimizer.step()
            optimizer.zero_grad()
    with pytest.raises(ValueError, match="a parameter is in groups 0 and 1"):
        distributed(weights, groups=[[weights[0]], [weights[0]]])


@on_ranks(2)
def test_compressors_of_the_user() -> None:
    class Halved:
        @staticmethod
        def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, float]:
            return tensor * 0.5, 2.0

        @staticmethod
        def decompress(tensor: torch.Tensor, ctx: float) -> torch.Tensor:
            return tensor * ctx

    a, b = params((3,), (4,))
    for compression in (Halved, Halved(), hvd.Compression.none, hvd.Compression.fp16, None):
        for param in (a, b):
            param.grad = None
        optimizer = distributed([a, b], compression=compression)
        for _ in range(2):
            give(torch.cat([a, b]), 1.0)
            require(a, mean(1.0))
            require(b, mean(1.0))
            optimizer.step()
            optimizer.zero_grad()


@on_ranks(1)
def test_compression_of_tensors() -> None:
    x = torch.tensor([1.0, 2.5])
    for kind, dtype in (
        (hvd.Compression.fp16, torch.float16),
        (hvd.Compression.bf16, torch.bfloat16),
    ):
        sent, ctx = kind.compress(x)
        assert sent.dtype == dtype
        assert torch.equal(kind.decompress(sent, ctx), x)
        whole = torch.arange(3)
        assert torch.equal(kind.decompress(*kind.compress(whole)), whole)
    sent, ctx = hvd.Compression.none.compress(x)
    assert hvd.Compression.none.decompress(sent, ctx) is x


@on_ranks(2)
def test_ranks_that_have_stepped_more_often() -> None:
    """A pass more on one rank meets that of the next step of another: all raise."""
    a, b = params((3,), (4,))
    optimizer = distributed([a, b])
    give(torch.cat([a, b]), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    give(a, 1.0)
    if ronde.rank() == 1:
        optimizer.step()
        optimizer.zero_grad()
    with pytest.raises(
        ronde.MismatchError, match=r"(?s)rank 0: before step 1\n.*rank 1: before step 2"
    ):
        give(b, 1.0)


@on_ranks(2, 3)
def test_other_parameters_on_a_rank() -> None:
    """All ranks raise, and can go on."""
    odd = ronde.rank() == 1
    others = "ranks 0, 2" if ronde.size() == 3 else "rank 0"
    for shape in ((4,), (4, 1), (2, 2), (3,)):
        weights = params((3,), shape if odd else (4,))
        optimizer = distributed(weights)
        loss = weights[0].sum() + weights[1].sum()
        if shape == (4,):
            loss.backward()
        else:
            shown = rf"(?s){others}: 0\.1: float32\[4\]\n.*rank 1: 0\.1: float32\[{shape[0]}"
            with pytest.raises(ronde.MismatchError, match=shown):
                loss.backward()
    weights = params((3,), (4,), *([(5,)] * odd))
    optimizer = distributed(weights)
    with pytest.raises(
        ronde.MismatchError,
        match=rf"(?s){others}: 2 parameters\n.*rank 1: 3 parameters, 0\.2: float32\[5\]",
    ):
        sum(param.sum() for param in weights).backward()
    [w] = params((3,))
    optimizer = distributed([w])
    give(w, 1.0)
    require(w, mean(1.0))
    optimizer.step()

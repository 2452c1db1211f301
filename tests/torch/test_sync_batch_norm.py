"""SyncBatchNorm against torch's BatchNorm on the joined batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import ronde
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

CHANNELS = 3
SHAPES: dict[int, tuple[int, ...]] = {2: (), 3: (5,), 4: (4, 2), 5: (2, 3, 2)}
ALONE: dict[int, Any] = {
    2: torch.nn.BatchNorm1d,
    3: torch.nn.BatchNorm1d,
    4: torch.nn.BatchNorm2d,
    5: torch.nn.BatchNorm3d,
}


def layer(**options: Any) -> Any:
    from ronde.torch import SyncBatchNorm

    made = SyncBatchNorm(CHANNELS, **options)
    with torch.no_grad():
        if made.affine:
            made.weight.copy_(torch.linspace(0.5, 2.0, CHANNELS))
            made.bias.copy_(torch.linspace(-1.0, 1.0, CHANNELS))
    return made


def alone_like(synced: Any, dimensions: int, **options: Any) -> Any:
    made = ALONE[dimensions](CHANNELS, **options)
    made.load_state_dict(synced.state_dict())
    return made.train(synced.training)


def batches(rows: list[int], dimensions: int, step: int = 0, offset: float = 0.0) -> list[Any]:
    """Of all ranks, alike on every rank."""
    random = torch.Generator().manual_seed(100 * dimensions + step)
    return [
        torch.randn(n, CHANNELS, *SHAPES[dimensions], generator=random, dtype=torch.float64)
        + offset
        for n in rows
    ]


def weights_of(output: Any) -> Any:
    """Some function of outputs that depends on each."""
    flat = torch.arange(output.numel(), dtype=torch.float64).reshape(output.shape)
    return torch.sin(flat).to(output.dtype)


def require_same_as_joined(
    rows: list[int],
    dimensions: int = 4,
    steps: int = 1,
    offset: float = 0.0,
    tolerance: float = 1e-10,
    **options: Any,
) -> None:
    synced = layer(dtype=torch.float64, **options)
    alone = alone_like(synced, dimensions, dtype=torch.float64, **options)
    me, before = ronde.rank(), sum(rows[: ronde.rank()])
    for step in range(steps):
        parts = batches(rows, dimensions, step, offset)
        mine = parts[me].clone().requires_grad_()
        joined = torch.cat(parts).requires_grad_()
        expected = alone(joined)
        output = synced(mine)
        here = slice(before, before + rows[me])
        weights = weights_of(expected.detach())
        (expected * weights).sum().backward()
        (output * weights[here]).sum().backward()
        near = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(output, expected[here], **near)
        torch.testing.assert_close(mine.grad, joined.grad[here], **near)
    if synced.affine:
        for ours, theirs in ((synced.weight, alone.weight), (synced.bias, alone.bias)):
            torch.testing.assert_close(ronde.allreduce(ours.grad, ronde.Sum), theirs.grad, **near)
    for name, ours in synced.named_buffers():
        torch.testing.assert_close(ours, dict(alone.named_buffers())[name], **near)


@on_ranks(2, 3)
def test_it_is_batch_norm_of_the_joined_batch_in_2_to_5_dimensions() -> None:
    for dimensions in SHAPES:
        require_same_as_joined([4] * ronde.size(), dimensions, steps=2)


@on_ranks(2, 3)
def test_batches_of_other_sizes_and_empty_ones() -> None:
    require_same_as_joined([3, 1, 6][: ronde.size()])
    require_same_as_joined([0, 5, 2][: ronde.size()])
    require_same_as_joined([4, 0, 0][: ronde.size()], 2)
    require_same_as_joined([1, 1, 1][: ronde.size()], 2)  # a row each


@on_ranks(2)
def test_options_of_batch_norm() -> None:
    require_same_as_joined([2, 3], steps=3, momentum=None)
    require_same_as_joined([2, 3], steps=2, momentum=0.3, eps=0.1)
    require_same_as_joined([2, 3], affine=False)
    require_same_as_joined([2, 3], track_running_stats=False)


@on_ranks(2)
def test_a_large_mean_does_not_spoil_the_variance() -> None:
    require_same_as_joined([4, 5], offset=1e6, tolerance=1e-7)


@on_ranks(2)
def test_halves_have_statistics_in_float32() -> None:
    parts = batches([64, 32], 4, offset=3.0)
    expected = layer().eval()
    alone = alone_like(expected, 4).train()(torch.cat(parts).bfloat16().float())
    here = slice(0, 64) if ronde.rank() == 0 else slice(64, 96)
    for made in (layer(), layer(dtype=torch.bfloat16)):  # of mixed and of pure halves
        x = parts[ronde.rank()].bfloat16().requires_grad_()
        y = made(x)
        assert y.dtype is torch.bfloat16
        torch.testing.assert_close(y.float(), alone[here], rtol=2**-6, atol=2**-6)
        y.float().square().sum().backward()
        assert x.grad.dtype is torch.bfloat16 and made.weight.grad.dtype is made.weight.dtype


@on_ranks(2)
def test_memory_formats_stay() -> None:
    made = layer()
    x = batches([2, 2], 4)[ronde.rank()].float().to(memory_format=torch.channels_last)
    x.requires_grad_()
    y = made(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
    assert x.grad.shape == x.shape
    plain = copy.deepcopy(made)
    torch.testing.assert_close(plain(x.detach().contiguous()), y.detach())


@on_ranks(2)
def test_in_eval_it_is_batch_norm_and_sends_nothing() -> None:
    made = layer().eval()
    x = batches([2, 2], 4)[ronde.rank()].float()
    if ronde.rank() == 0:  # the other rank does not call it
        torch.testing.assert_close(made(x), alone_like(made, 4)(x))


@on_ranks(2)
def test_all_ranks_have_the_same_bits() -> None:
    made = layer()
    made(batches([2, 3], 4)[ronde.rank()].float())
    seen = ronde.allgather_object([each.tolist() for each in made.buffers()])
    assert seen[0] == seen[1]


@on_ranks(2)
def test_gradients_are_not_computed_for_what_needs_none() -> None:
    made = layer()
    y = made(batches([2, 2], 4)[ronde.rank()].float())
    y.sum().backward()
    assert made.bias.grad is not None
    frozen = layer().requires_grad_(False)
    x = batches([2, 2], 4)[ronde.rank()].float().requires_grad_()
    frozen(x).square().sum().backward()
    assert x.grad is not None and frozen.weight.grad is None


@on_ranks(2)
def test_it_can_be_saved_and_converted() -> None:
    made = layer()
    alone = torch.nn.BatchNorm2d(CHANNELS)
    alone.load_state_dict(made.state_dict())
    copy.deepcopy(made).load_state_dict(alone.state_dict())


def _raises(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


@on_ranks(2)
def test_wrong_inputs_are_refused_before_anything_is_sent() -> None:
    made = layer()
    if ronde.rank() == 0:
        _raises(lambda: made(torch.zeros(2, CHANNELS + 1)), r"shape \(rows, 3, ...\), not \(2, 4\)")
        _raises(lambda: made(torch.zeros(CHANNELS)), "shape")
        _raises(lambda: made(torch.zeros(2, CHANNELS, dtype=torch.int64)), "floating")


@on_ranks(2)
def test_one_value_per_channel_has_no_variance() -> None:
    rows = 1 - ronde.rank()
    _raises(lambda: layer()(torch.zeros(rows, CHANNELS)), "more than one value per channel")


def test_it_needs_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from ronde.torch import SyncBatchNorm

    monkeypatch.setattr(ronde.context, "_world", None)  # another test may have begun one
    _raises(lambda: SyncBatchNorm(2)(torch.zeros(3, 2)), r"init\(\)")

"""Training on several ranks equals that of one process on the batches of all of them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ranks import on_ranks

torch = pytest.importorskip("torch", reason="torch is not installed")

import ronde  # noqa: E402
import ronde.torch as hvd  # noqa: E402
from torch import nn  # noqa: E402

ROWS = 8  # of each rank
STEPS = 5


def mse_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - y).square().mean()  # that of torch 2.4 has no bfloat16


def net(dtype: torch.dtype = torch.float64, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(12, 24, bias=bias), nn.Tanh(), nn.Linear(24, 24, bias=bias), nn.Tanh()
    return nn.Sequential(*layers, nn.Linear(24, 3, bias=bias)).to(dtype)


def batch(number: int, dtype: torch.dtype, distributed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of this rank, or of all."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(ROWS * ronde.size(), 12, generator=generator, dtype=torch.float64).to(dtype)
    mine = slice(ROWS * ronde.rank(), ROWS * (ronde.rank() + 1)) if distributed else slice(None)
    return x[mine], (x[mine, :3] ** 2)


def values(model: nn.Module) -> torch.Tensor:
    return torch.cat([param.detach().flatten() for param in model.parameters()])


def train(
    make: Callable[[Any], Any],
    distributed: bool,
    *,
    dtype: torch.dtype = torch.float64,
    bias: bool = True,
    clip: float = 0.0,
    scaler: Any = None,
    passes: int = 1,
    closure: bool = False,
    set_to_none: bool = True,
    **options: Any,
) -> torch.Tensor:
    """The parameters after some steps."""
    model = net(dtype, bias)
    optimizer = make(model.parameters())
    if distributed:
        optimizer = hvd.DistributedOptimizer(
            optimizer, model.named_parameters(), backward_passes_per_step=passes, **options
        )
    batches: Iterator[int] = iter(range(STEPS * passes))

    def backward() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=set_to_none)
        for _ in range(passes):
            x, y = batch(next(batches), dtype, distributed)
            loss = mse_loss(model(x), y) / passes
            (scaler.scale(loss) if scaler else loss).backward()
        if clip:
            if scaler:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        return loss

    for step in range(STEPS):
        if closure:
            x, y = batch(step, dtype, distributed)

            def evaluate(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
                optimizer.zero_grad()
                loss = mse_loss(model(x), y)
                loss.backward()
                return loss

            optimizer.step(evaluate)
            continue
        backward()
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
    return values(model)


def check(make: Callable[[Any], Any], tolerance: float = 1e-12, **options: Any) -> None:
    scaler = options.pop("scaler", False)

    def scaling() -> Any:
        return torch.amp.GradScaler("cpu", init_scale=2.0**8) if scaler else None

    alone = train(make, False, scaler=scaling(), **options)
    together = train(make, True, scaler=scaling(), **options)
    require_same_bits(together)
    torch.testing.assert_close(together, alone, rtol=0, atol=tolerance)


def require_same_bits(x: torch.Tensor) -> None:
    bits = x.contiguous().view(torch.uint8).numpy().tobytes()
    assert len(set(ronde.allgather_object(bits))) == 1


def sgd(params: Any) -> Any:
    return torch.optim.SGD(params, 0.1)


def adam(params: Any) -> Any:
    return torch.optim.Adam(params, 0.01)


@on_ranks(2, 3)
def test_sgd() -> None:
    check(sgd)


@on_ranks(2, 3)
def test_sgd_with_momentum_and_decay() -> None:
    check(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01))


@on_ranks(2)
def test_other_optimizers() -> None:
    check(adam)
    check(lambda p: torch.optim.AdamW(p, 0.01))
    if hasattr(torch.optim, "Adafactor"):
        check(lambda p: torch.optim.Adafactor(p, 0.01), 1e-9)
    check(lambda p: torch.optim.RMSprop(p, 0.01))
    check(lambda p: torch.optim.Adagrad(p, 0.01))


@on_ranks(2)
def test_muon() -> None:
    if hasattr(torch.optim, "Muon"):  # it rounds to bfloat16
        check(lambda p: torch.optim.Muon(p, 0.01), 1e-3, bias=False)


@on_ranks(2, 3)
def test_lbfgs_with_a_line_search() -> None:
    check(
        lambda p: torch.optim.LBFGS(p, 0.5, max_iter=5, line_search_fn="strong_wolfe"),
        1e-9,
        closure=True,
    )


@on_ranks(2)
def test_a_closure_of_another_optimizer() -> None:
    check(adam, closure=True)


@on_ranks(2)
def test_clipping() -> None:
    check(sgd, clip=0.05)
    check(adam, clip=0.05)


@on_ranks(2)
def test_a_scaler() -> None:
    check(sgd, scaler=True, clip=0.05)
    check(adam, scaler=True)


@on_ranks(2, 3)
def test_accumulation() -> None:
    check(sgd, passes=4)
    check(adam, passes=4, clip=0.05)


@on_ranks(2)
def test_gradients_that_are_zeroed() -> None:
    check(adam, set_to_none=False)
    check(sgd, passes=4, set_to_none=False)


@on_ranks(2)
def test_single_precision() -> None:
    check(sgd, 1e-5, dtype=torch.float32)
    check(adam, 1e-4, dtype=torch.float32, passes=4, clip=0.05)


@on_ranks(2)
def test_bfloat16_and_float16() -> None:
    check(sgd, 0.05, dtype=torch.bfloat16)
    check(sgd, 0.05, dtype=torch.bfloat16, passes=4)
    check(sgd, 0.01, dtype=torch.float16)


@on_ranks(2)
def test_other_buckets() -> None:
    for groups in (1, 3, 100):
        check(sgd, groups=groups)


@on_ranks(2, 3)
def test_converted_gradients() -> None:
    check(sgd, 1e-3, compression=hvd.Compression.fp16)
    check(sgd, 1e-2, compression=hvd.Compression.bf16)


@on_ranks(2)
def test_a_predivide_factor() -> None:
    check(sgd, gradient_predivide_factor=4.0)


@on_ranks(2)
def test_a_sum() -> None:
    """Its gradient is as many times the average as there are ranks."""
    alone = train(lambda p: torch.optim.SGD(p, 0.1 * ronde.size()), False)
    together = train(sgd, True, op=ronde.Sum)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@on_ranks(2)
def test_a_schedule_made_before_or_after() -> None:
    """A schedule replaces `step` of the object."""
    results = []
    for when in ("never", "before", "after"):
        model = net()
        optimizer = sgd(model.parameters())
        if when != "after":
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        if when != "never":
            optimizer = hvd.DistributedOptimizer(optimizer)
        if when == "after":
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        for step in range(STEPS):
            optimizer.zero_grad()
            x, y = batch(step, torch.float64, when != "never")
            mse_loss(model(x), y).backward()
            optimizer.step()
            schedule.step()
        results.append(values(model))
    for each in results[1:]:
        torch.testing.assert_close(each, results[0], rtol=0, atol=1e-12)


@on_ranks(2)
def test_an_overflow_is_skipped_by_all() -> None:
    """Infinity on one rank reaches all in the sum, so their scalers decide alike."""
    model = net(torch.float32)
    optimizer = hvd.DistributedOptimizer(sgd(model.parameters()))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    before = copy.deepcopy(model.state_dict())
    x, y = batch(0, torch.float32, True)
    for overflows in (True, False, True):
        optimizer.zero_grad()  # also after a step that was skipped
        factor = float("inf") if overflows and ronde.rank() == 1 else 1.0
        scaler.scale(mse_loss(model(x), y) * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        same = all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert same == overflows
        before = copy.deepcopy(model.state_dict())
    assert scaler.get_scale() == 2.0**6


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4 * 36, 3)
    ).double()


@on_ranks(2)
def test_channels_last() -> None:
    """Gradients keep the strides of their parameters."""
    results = []
    for distributed in (False, True):
        model = convolutions().to(memory_format=torch.channels_last)
        optimizer = sgd(model.parameters())
        if distributed:
            optimizer = hvd.DistributedOptimizer(optimizer, model.named_parameters())
        for step in range(3):
            x = torch.randn(
                8, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(step)
            )
            mine = slice(4 * ronde.rank(), 4 * ronde.rank() + 4) if distributed else slice(None)
            x = x.to(memory_format=torch.channels_last)
            optimizer.zero_grad()
            (model(x[mine]) - 1).pow(2).mean().backward()
            for param in model.parameters():
                assert param.grad.stride() == param.stride()
            optimizer.step()
        results.append(values(model))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)


@on_ranks(2)
def test_a_compiled_model() -> None:
    results = []
    for distributed in (False, True):
        model = net()
        compiled = torch.compile(model, backend="aot_eager")
        optimizer = sgd(model.parameters())
        if distributed:
            optimizer = hvd.DistributedOptimizer(optimizer, model.named_parameters())
        for step in range(3):
            x, y = batch(step, torch.float64, distributed)
            optimizer.zero_grad()
            mse_loss(compiled(x), y).backward()
            optimizer.step()
        results.append(values(model))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)


@on_ranks(2)
def test_adasum_of_changes() -> None:
    """Each rank steps by itself; then the changes of each parameter are combined."""
    model, own = net(), net()
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), op=ronde.Adasum
    )
    alone = torch.optim.SGD(own.parameters(), 0.1, momentum=0.9)
    for step in range(3):
        x, y = batch(step, torch.float64, True)
        for each, by in ((model, optimizer), (own, alone)):
            by.zero_grad()
            mse_loss(each(x), y).backward()
        before = [param.detach().clone() for param in own.parameters()]
        optimizer.step()
        alone.step()
        for param, mine, start in zip(model.parameters(), own.parameters(), before, strict=True):
            change = ronde.allreduce(mine.detach() - start, ronde.Adasum)
            torch.testing.assert_close(param.detach(), start + change, rtol=0, atol=1e-15)
            mine.data.copy_(param.data)
    require_same_bits(values(model))


@on_ranks(2)
def test_compression_by_ronde() -> None:
    """Inside a machine nothing is compressed; but the calls are those of compressors."""
    feedback = ronde.compression.ErrorFeedback("int4")
    for compression in ("int4", "auto", feedback, {"0.weight": "int8"}, ronde.compression.bf16()):
        check(sgd, 1e-5, compression=compression)


def test_between_machines() -> None:
    """In deterministic mode buckets change no bit; compressors keep what they leave out, over restarts."""
    import jobs

    command = [sys.executable, str(Path(__file__).parent / "programs" / "between_machines.py")]
    variables = {"OMP_NUM_THREADS": "1", "RONDE_DETERMINISTIC": "1", "RONDE_SHARED_MEMORY": "0"}
    with jobs.started_command(3, command, **variables) as process:
        output, _ = process.communicate(timeout=200)
    for rank in range(3):
        assert f"rank {rank} is done" in output, output

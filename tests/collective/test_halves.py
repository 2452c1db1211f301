"""Averages of float16 and bfloat16, up to the largest numbers and down to the smallest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import ronde
from ronde import _core
from ronde.compression import ErrorFeedback, bf16, fp16
from routes import MEMORIES, Route
from test_feedback import Fp16
from threads import Rank, run_all
from values import numpy_dtype, same_bits

F16, BF16 = _core.DType.float16, _core.DType.bfloat16
SUM = ronde.Sum
UNITS = {F16: 2.0**-11, BF16: 2.0**-8}  # half a unit in the last place, relative
LINKS = {  # on which contributions go with phase 0, or nothing does
    "contributions": _core.Link(alpha=1.0, overhead=0.0, beta=1e-12, gamma=1e-12),
    "nothing": _core.Link(alpha=1e-12, overhead=1e-12, beta=1.0, gamma=1.0),
}


def contributions(size: int, count: int, dtype: _core.DType) -> np.ndarray:
    """Numbers of every magnitude; elements that all ranks have at the end of the range, or next to zero;
    large ones of which some cancel."""
    random = np.random.default_rng([size, count])
    kind = numpy_dtype(dtype)
    limits = ml_dtypes.finfo(kind)
    x = random.integers(0, 1 << 16, (size, count), np.uint16).view(kind)
    with np.errstate(invalid="ignore"):  # NaN that signals
        x[~np.isfinite(x.astype(np.float64))] = 1
    part = count // 8
    signs = random.choice([-1, 1], (size, part))
    near = (random.uniform(0.95, 1, (size, part)) * float(limits.max)).astype(kind)
    x[:, :part] = near
    x[:, part : 2 * part] = limits.max
    x[:, 2 * part : 3 * part] = near * signs.astype(kind)
    x[:, 3 * part : 4 * part] = (random.integers(-9, 10, (size, part))).astype(kind) * kind.type(
        limits.smallest_subnormal
    )
    return x


@dataclass(frozen=True)
class Job:
    """An average of some ranks: how they do it, and how often a contribution is rounded at most."""

    name: str
    size: int
    roundings: int
    options: dict[str, Any]  # of the ranks
    average: Callable[[Rank, np.ndarray, tuple[float, float]], tuple[slice, np.ndarray | None]]


def how(x: np.ndarray, algorithm: str) -> tuple[_core.DType, str]:
    return _core.DType.__members__[x.dtype.name], algorithm


def allreduce(algorithm: str = "", link: str = "nothing", memory: str = "") -> Any:
    def average(me: Rank, mine: np.ndarray, factors: tuple[float, float]) -> Any:
        me.communicator.set_link(LINKS[link])
        mine = Route(memory=memory).put(me.rank, mine)
        me.communicator.allreduce(mine, mine, ronde.Average, None, *factors, *how(mine, algorithm))
        return slice(None), mine

    return average


def reduce(algorithm: str = "", memory: str = "") -> Any:
    def average(me: Rank, mine: np.ndarray, factors: tuple[float, float]) -> Any:
        root = me.size // 2
        mine = Route(memory=memory).put(me.rank, mine)
        options = *factors, *how(mine, algorithm)
        return slice(None), me.communicator.reduce(mine, root, ronde.Average, None, *options)

    return average


def reduce_scatter(algorithm: str = "", memory: str = "") -> Any:
    def average(me: Rank, mine: np.ndarray, factors: tuple[float, float]) -> Any:
        counts = [mine.size // me.size + (r < mine.size % me.size) for r in range(me.size)]
        mine = Route(memory=memory).put(me.rank, mine)
        options = *factors, *how(mine, algorithm)
        output = me.communicator.reducescatter(mine, ronde.Average, None, *options)
        begin = sum(counts[: me.rank])
        return slice(begin, begin + output.size), output

    return average


def jobs() -> Iterator[Job]:
    makers = {"allreduce": allreduce, "reduce": reduce, "reducescatter": reduce_scatter}
    for collective, algorithm, _, any_size in _core.algorithms():
        if collective not in makers:
            continue
        for size in (2, 3, 4, 7, 8, 13):
            if any_size or size & (size - 1) == 0:
                depth = _core.simulate(collective, algorithm, [1] * size).depth
                run = makers[collective](algorithm)
                yield Job(f"{collective} {algorithm}", size, depth, {}, run)
    riding = allreduce(link="contributions")
    yield Job("contributions", 8, 3, {}, riding)
    yield Job("machines, contributions", 8, 3, {"machines": [0, 0, 1, 1, 2, 2, 3, 3]}, riding)
    yield Job("machines", 6, 1 + 2, {"machines": [0, 0, 1, 1, 2, 2]}, allreduce())
    yield Job("deterministic", 7, 3, {"deterministic": True}, allreduce())
    for memory in MEMORIES:
        for collective, make in makers.items():
            yield Job(
                f"{collective} in {memory} memory", 4, 1, {"shared": True}, make(memory=memory)
            )


@pytest.mark.parametrize("dtype", [F16, BF16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("job", list(jobs()), ids=lambda job: f"{job.name}, {job.size}")
def test_averages_keep_the_documented_error_bound(job: Job, dtype: _core.DType) -> None:
    limits = ml_dtypes.finfo(numpy_dtype(dtype))
    largest, smallest = float(limits.max), float(limits.smallest_subnormal)
    for count in (40, 2000):  # the short ones go with phase 0 where that is possible
        everything = contributions(job.size, count, dtype)
        terms = everything.astype(np.float64)
        for factors in ((1.0, 1.0), (4.0, 0.25), (1e30, 3e-31)):

            def program(me: Rank, x: np.ndarray = everything, factors: Any = factors) -> Any:
                return job.average(me, x[me.rank].copy(), factors)

            results = run_all(job.size, program, **job.options)
            factor = factors[0] * factors[1]
            exact = terms.mean(axis=0) * factor
            magnitude = np.abs(terms).mean(axis=0) * abs(factor)
            roundings = job.roundings + (factor != 1.0)
            float32 = job.size * 2.0**-23 * magnitude
            bound = roundings * (UNITS[dtype] * magnitude + smallest / 2) * 1.01 + float32
            for part, result in results:
                if result is None:
                    continue
                found = result.astype(np.float64)
                assert np.isfinite(found).all(), (count, factors)
                error = np.abs(found - exact[part])
                assert (error <= bound[part]).all(), (count, factors, (error / bound[part]).max())
                assert (np.abs(found) <= largest).all()


def test_ranks_agree_on_every_bit_and_the_deterministic_mode_on_any_place() -> None:
    everything = contributions(7, 1000, F16)

    def program(me: Rank) -> np.ndarray:
        mine = everything[me.rank]
        whole = me.communicator.allreduce(mine, None, ronde.Average)
        part = me.communicator.allreduce(mine[300:310], None, ronde.Average)
        assert same_bits(whole[300:310], part)
        return whole

    results = run_all(7, program, deterministic=True)
    assert all(same_bits(results[0], each) for each in results)


PLACEMENTS: dict[str, dict[str, Any]] = {
    "messages": {},
    "memory": {"shared": True},
    "machines": {"machines": [0, 0, 1, 1]},
}


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("count", [1, 5000, 70_000])
def test_averages_of_compressed_halves_are_finite(placement: str, count: int) -> None:
    x = np.full(count, 60000.0, np.float32)

    def program(me: Rank) -> None:
        where = SimpleNamespace(_communicator=me.communicator)
        for how in (fp16(), ErrorFeedback(fp16()), bf16(), Fp16(), ErrorFeedback(Fp16())):
            y = ronde.allreduce(x, name="w", compression=how, process_set=where)
            np.testing.assert_allclose(y, x, rtol=2.0**-8)
        total = ronde.allreduce(x, ronde.Sum, name="w", compression=Fp16(), process_set=where)
        np.testing.assert_allclose(total, 4 * x, rtol=2.0**-10)

    run_all(4, program, **PLACEMENTS[placement])


def test_a_residual_of_means_is_in_units_of_a_contribution() -> None:
    """What a mean of the ranks of a machine leaves out has to come later, as often as there are ranks."""
    x = np.full(1000, 2049.0, np.float32)  # half way between two numbers of float16

    def program(me: Rank) -> tuple[np.ndarray, np.ndarray]:
        where = SimpleNamespace(_communicator=me.communicator)
        feedback = ErrorFeedback(fp16())
        y = ronde.allreduce(x, name="w", compression=feedback, process_set=where)
        return y, feedback.residual("w")

    results = run_all(4, program, machines=[0, 0, 1, 1])
    left = np.sum([residual for _, residual in results], axis=0)
    assert left.any()
    np.testing.assert_array_equal(results[0][0] + left / 4, x)

"""ronde.compression: compressors by themselves, error feedback, and the optimizer that uses them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ronde
from ronde import compression as rc

ronde.init()

MAKERS: list[Callable[[], Any]] = [
    rc.bf16,
    rc.fp16,
    rc.fp8,
    rc.int8,
    rc.int4,
    rc.sign,
    rc.ternary,
    rc.qsgd,
    lambda: rc.linear(3, block=512, norm="l2", rounding="stochastic", seed=4),
    lambda: rc.topk(0.1),
    lambda: rc.block_topk(0.1, 128),
    lambda: rc.randomk(0.2, seed=4),
    lambda: rc.shared_scale(4),
    lambda: rc.shared_scale(8, block=256, rounding="stochastic", seed=4),
]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("make", MAKERS)
def test_round_trips_keep_shape_and_size_and_are_close(make: Callable[[], Any]) -> None:
    c = make()
    x = normal(7, 300)
    payload, ctx = c.compress(x)
    y = c.decompress(payload, ctx)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert payload.dtype == np.uint8
    assert payload.nbytes <= c.payload_bytes(x.size) < x.nbytes
    assert np.corrcoef(x.ravel(), y.ravel())[0, 1] > 0.3


@pytest.mark.parametrize("make", MAKERS)
def test_compressors_show_what_they_are_and_are_equal_by_that(make: Callable[[], Any]) -> None:
    c = make()
    assert c == make()
    assert hash(c) == hash(make())
    assert eval(repr(c), {"ronde": ronde}).compress(normal(600))[0].size == c.payload_bytes(600)
    again = pickle.loads(pickle.dumps(c))
    assert again == c
    np.testing.assert_array_equal(again.compress(normal(600))[0], make().compress(normal(600))[0])
    assert c != rc.linear(5, block=512)


def test_a_threshold_sends_what_reaches_it() -> None:
    c, x = rc.threshold(1.5), normal(40, 50)
    payload, ctx = c.compress(x)
    np.testing.assert_array_equal(c.decompress(payload, ctx), np.where(np.abs(x) < 1.5, 0, x))
    assert payload.nbytes < c.payload_bytes(x.size) == 8 + x.nbytes
    assert repr(c) == "ronde.compression.threshold(value=1.5)"
    assert c == rc.threshold(1.5) != rc.threshold(2)


def test_random_numbers_follow_the_seed() -> None:
    x = normal(4096)

    def three(seed: int) -> list[bytes]:
        c = rc.qsgd(seed=seed)
        return [c.compress(x)[0].tobytes() for _ in range(3)]

    assert three(1) == three(1)
    assert len({*three(1), *three(2)}) == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rc.linear(9), "bits"),
        (lambda: rc.linear(4, block=100), "block"),
        (lambda: rc.linear(4, norm="most"), "norm must be one of max, mean, l2, not 'most'"),
        (lambda: rc.linear(4, rounding="up"), "rounding must be one of nearest, stochastic"),
        (lambda: rc.topk(0), "ratio must be above 0 and at most 1"),
        (lambda: rc.randomk(1.1), "ratio must be above 0 and at most 1"),
        (lambda: rc.block_topk(0.1, 100), "block of top-k must be a multiple of 32"),
        (lambda: rc.threshold(-1), "threshold must be positive and finite"),
        (lambda: rc.shared_scale(1), "2 to 8 bits, not 1"),
        (lambda: rc.shared_scale(4, block=100), "multiple of 128 elements, up to 4096, not 100"),
        (lambda: rc.shared_scale(4, rounding="up"), "rounding must be one of nearest, stochastic"),
    ],
)
def test_what_there_is_not_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_only_sums_of_floating_types_are_compressed() -> None:
    x = np.ones(3, np.int32)
    with pytest.raises(TypeError, match="compression needs a floating type"):
        rc.int8().compress(x)
    with pytest.raises(TypeError, match="compression needs a floating type"):
        ronde.allreduce(x, ronde.Sum, compression=rc.int8())
    with pytest.raises(ValueError, match=r"ronde\.Min"):
        ronde.allreduce(np.ones(3, np.float32), ronde.Min, compression=rc.int8())


def test_malformed_payloads_are_refused() -> None:
    payload, ctx = rc.int8().compress(normal(3000))
    for bad in (payload[:-1], payload[:0], np.concatenate([payload, payload])):
        with pytest.raises(ValueError, match="payload"):
            rc.int8().decompress(bad, ctx)


def test_feedback_needs_a_name_and_keeps_the_shape() -> None:
    feedback = rc.ErrorFeedback(rc.sign())
    with pytest.raises(ValueError, match="needs a name"):
        ronde.allreduce(normal(5), compression=feedback)
    ronde.allreduce(normal(5), name="w", compression=feedback)
    with pytest.raises(ValueError, match=r"residual of 'w' has 5 elements, the array 6"):
        ronde.allreduce(normal(6), name="w", compression=feedback)
    with pytest.raises(TypeError, match="compressor must be"):
        rc.ErrorFeedback(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"belongs to ronde\.compression\.sign"):
        rc.ErrorFeedback(rc.int8()).load_state_dict(feedback.state_dict())


def test_groups_may_mix() -> None:
    xs = [normal(3, 500), normal(4), np.ones(3), normal(900)]
    ways = [rc.int8(), None, None, rc.ErrorFeedback(rc.int4())]
    for y, x in zip(ronde.grouped_allreduce(xs, name="g", compression=ways), xs, strict=True):
        np.testing.assert_array_equal(y, x)  # one rank
    assert list(ways[-1].norms()) == ["g[3]"]
    with pytest.raises(ValueError, match="2 entries for 4 arrays"):
        ronde.grouped_allreduce(xs, compression=[None, None])


def chosen(compression: Any, grads: Any) -> set[Any]:
    """The labels whose gradients the optimizer gives to a compressor with feedback."""
    seen: list[Any] = []

    def optimizer(params: Any, grads: Any) -> Any:
        return params

    opt = ronde.DistributedOptimizer(optimizer, compression=compression, name="o")
    opt(None, grads)
    choice = opt._ronde_reducer.choice
    for feedback in (*choice._kept.values(), compression):
        if isinstance(feedback, rc.ErrorFeedback):
            seen += feedback.norms()
    return {name.partition("[")[2].rstrip("]").strip("'") for name in seen}


def test_the_optimizer_compresses_matrices() -> None:
    grads = {"w": normal(3, 4), "b": normal(4), "k": normal(2, 2, 2)}
    assert chosen(rc.int8(), grads) == {"w", "k"}
    assert chosen(rc.ErrorFeedback(rc.int8()), grads) == {"w", "k"}
    assert chosen({"b": rc.int8(), "w": None}, grads) == {"b"}
    assert chosen(lambda key, x: rc.int8() if x.size == 8 else None, grads) == {"k"}
    assert chosen(rc.qsgd(), grads) == set()  # right on average: nothing to feed back
    with pytest.raises(TypeError, match="compression must be"):
        chosen([1], grads)


def test_a_function_may_make_compressors_anew() -> None:
    opt = ronde.DistributedOptimizer(
        lambda params, grads: params, compression=lambda key, x: (rc.qsgd, rc.sign)[key]()
    )
    choice = opt._ronde_reducer.choice
    for key in range(2):
        assert choice.of(key, normal(3, 4)) is choice.of(key, normal(3, 4))


def test_copies_of_an_optimizer_have_residuals_of_their_own() -> None:
    def optimizer(params: Any, grads: Any) -> Any:
        return params

    opt = ronde.DistributedOptimizer(optimizer, compression=rc.ErrorFeedback(rc.sign()))
    twin = copy.copy(opt)
    opt(None, [normal(2, 300)])
    assert not twin._ronde_reducer.choice._compression.norms()

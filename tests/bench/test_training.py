"""The model, the data and the arithmetic of benchmarks/time_to_loss.py."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.training import data, model, report


def test_gradients_are_the_slope_of_the_loss() -> None:
    params = model.new_parameters()
    assert sum(param.size for param in params) >= 10_000_000
    examples = data.held_out_examples(8)
    grads = model.gradients(params, *examples)
    for param, grad in zip(params, grads, strict=True):
        # Along the gradient itself, with a step that changes the loss by about 0.02.
        norm = float(np.linalg.norm(grad))
        step = np.float32(0.01 / norm**2) * grad
        param += step
        above = model.loss(params, *examples)
        param -= 2 * step
        below = model.loss(params, *examples)
        param += step
        assert above - below == pytest.approx(0.02, rel=0.1)


def test_momentum_sgd() -> None:
    params = [np.array([1.0, 2.0], np.float32), np.array([[3.0]], np.float32)]
    sgd = model.MomentumSGD(params, momentum=0.5)
    sgd.rate = 0.1
    grads = [np.array([1.0, -1.0], np.float32), np.array([[2.0]], np.float32)]
    sgd.step(grads)
    sgd.step(grads)  # velocities are 1 and then 1.5 gradients
    np.testing.assert_allclose(params[0], [0.75, 2.25], rtol=1e-6)
    np.testing.assert_allclose(params[1], [[2.5]], rtol=1e-6)


def test_ranks_have_texts_of_their_own_and_draw_the_same_again() -> None:
    texts = [data.training_text(rank, 4) for rank in range(4)]
    assert sum(map(len, texts)) == len(data.training_text(0, 1))
    contexts, following = next(data.batches(texts[0], 5, (0, 0)))
    assert contexts.shape == (5, data.CONTEXT)
    again = next(data.batches(texts[0], 5, (0, 0)))
    np.testing.assert_array_equal(contexts, again[0])
    np.testing.assert_array_equal(following, again[1])


def test_when_a_loss_is_reached() -> None:
    """By the mean of five losses; at the ends, of those that are there."""
    losses = [10.0, 8.0, 6.0, 4.0, 2.0, 0.0, 1.0]
    run = report.Run([(10.0 * i, loss, 2.0 * i) for i, loss in enumerate(losses)], [0.2])
    assert [low for _, low, _ in run.smooth()] == [8.0, 7.0, 6.0, 4.0, 2.6, 1.75, 1.0]
    assert run.reaches(5.0) == (25.0, 5.0)
    assert run.reaches(4.0) == (30.0, 6.0)
    assert run.reaches(0.9) is None
    assert run.final == 1.0

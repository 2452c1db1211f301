"""Training on several ranks: the example, and DistributedOptimizer against a reference.

Run with the name of a check (`mpirun -n 4 python test_training.py averages`), this file is the
program of the ranks: the checks are the functions in `CHECKS`.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ronde
from ronde.cli import launch

EXAMPLE = Path(__file__).parents[2] / "examples" / "train.py"
GPU_EXAMPLE = EXAMPLE.with_name("gpu_train.py")
STEPS = 5


@pytest.fixture(scope="module")
def mpi() -> launch.Mpi:
    return launch.find_mpi()


def run(mpi: launch.Mpi, ranks: int, *arguments: object) -> str:
    """What a Python program writes on so many ranks; on 0 it runs without a launcher."""
    program = [sys.executable, *map(str, arguments)]
    argv, variables = launch.command(ranks, program, mpi=mpi) if ranks else (program, {})
    done = subprocess.run(
        argv,
        env=launch.environment() | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


# The example


def train(mpi: launch.Mpi, ranks: int, folder: Path, *options: object) -> tuple[Any, float]:
    """The loss of each epoch and the accuracy."""
    curve = folder / f"{ranks}.json"
    output = run(mpi, ranks, EXAMPLE, "--curve", curve, *options)
    first = output.splitlines()[0]
    assert f"{max(ranks, 1)} ranks, identical parameters" in first
    return np.array(json.loads(curve.read_text())), float(first.split()[2].rstrip(","))


@pytest.fixture
def example() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("tqdm")


def test_the_example_learns_the_same_on_any_number_of_ranks(
    mpi: launch.Mpi, example: None, tmp_path: Path
) -> None:
    alone, accuracy = train(mpi, 0, tmp_path)
    assert accuracy > 0.95
    assert alone[-1] < 0.2 < 1.0 < alone[0]
    for ranks in (3, 8):
        together, its_accuracy = train(mpi, ranks, tmp_path)
        # The ranks' sums are rounded in another order than the sum over one whole batch.
        np.testing.assert_allclose(together, alone, rtol=1e-9)
        assert its_accuracy == accuracy


@pytest.mark.parametrize("compression", ["auto", "int4"])
def test_the_example_learns_with_compression_though_its_gradients_are_float64(
    mpi: launch.Mpi,
    example: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compression: str,
) -> None:
    monkeypatch.setenv("RONDE_SHARED_MEMORY", "0")  # so that something is compressed
    curve, accuracy = train(mpi, 2, tmp_path, "--compression", compression)
    assert accuracy > 0.95
    assert curve[-1] < 0.2 < 1.0 < curve[0]


def test_the_example_is_exact_when_a_batch_leaves_ranks_without_work(
    mpi: launch.Mpi, example: None, tmp_path: Path
) -> None:
    options = ("--epochs", 1, "--batch-size", 5, "--hidden", 8)
    alone, _ = train(mpi, 0, tmp_path, *options)
    together, _ = train(mpi, 8, tmp_path, *options)
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_the_example_for_gpus_learns_the_same(
    mpi: launch.Mpi, example: None, tmp_path: Path
) -> None:
    """With NumPy, which stands for CuPy."""
    options = ("--epochs", 5)
    expected, accuracy = train(mpi, 0, tmp_path, *options)
    curve = tmp_path / "gpu.json"
    output = run(mpi, 3, GPU_EXAMPLE, "--device", "cpu", "--curve", curve, *options)
    assert f"test accuracy {accuracy:.4f}, 3 ranks, identical parameters" in output
    # float32 for float64
    np.testing.assert_allclose(json.loads(curve.read_text()), expected, rtol=1e-4)


@pytest.mark.skipif(ronde.cuda_available(), reason="there is a GPU")
def test_the_example_for_gpus_says_what_is_missing(example: None) -> None:
    command = [sys.executable, GPU_EXAMPLE]
    done = subprocess.run(command, env=launch.environment(), capture_output=True, text=True)
    assert done.returncode == 1
    if importlib.util.find_spec("cupy") is None:
        assert done.stderr.startswith("CuPy is missing (No module named 'cupy'): pip install")
    else:
        assert done.stderr.startswith("CuPy finds no GPU (")
    assert "Traceback" not in done.stderr


# DistributedOptimizer


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_update_like_the_reference(mpi: launch.Mpi, ranks: int) -> None:
    output = run(mpi, ranks, __file__, *CHECKS)
    assert output.splitlines() == list(CHECKS)


class Momentum:
    """Gradient descent with momentum on a dictionary of arrays."""

    def __init__(self, params: dict[str, np.ndarray], rate: float = 0.1) -> None:
        self.params, self.rate = params, rate
        self.velocity = {name: np.zeros_like(param) for name, param in params.items()}

    def step(self, grads: dict[str, np.ndarray | None]) -> None:
        for name, grad in grads.items():
            if grad is not None:
                self.velocity[name] = 0.9 * self.velocity[name] - self.rate * grad
                self.params[name] += self.velocity[name]


def parameters(dtype: type) -> dict[str, np.ndarray]:
    return {"w": np.ones((7, 5), dtype), "b": np.ones(3, dtype), "unused": np.ones(2, dtype)}


def gradients(rank: int, number: int) -> dict[str, np.ndarray | None]:
    """Those of a rank in its pass of this number, as float32."""
    rng = np.random.default_rng([rank, number])
    drawn = {name: rng.normal(size=p.shape) for name, p in parameters(np.float32).items()}
    return {**{name: grad.astype(np.float32) for name, grad in drawn.items()}, "unused": None}


def reference(
    ranks: list[int], passes: int = 1, divisor: float | None = None
) -> dict[str, np.ndarray]:
    """The parameters after `STEPS` steps, in float64, from the gradients of all ranks."""
    params = parameters(np.float64)
    velocity = {"w": np.zeros((7, 5)), "b": np.zeros(3)}
    for step in range(STEPS):
        for name in velocity:
            total = np.zeros(params[name].shape)
            for rank in ranks:
                for number in range(step * passes, (step + 1) * passes):
                    total += gradients(rank, number)[name]
            velocity[name] = 0.9 * velocity[name] - 0.1 * total / (divisor or len(ranks))
            params[name] += velocity[name]
    return params


def check_parameters(params: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, param in params.items():
        np.testing.assert_allclose(param, expected[name], rtol=1e-5, atol=1e-5)
        assert param.dtype == np.float32


def check_identical(params: Any, process_set: Any = ronde.global_process_set) -> None:
    contents = pickle.dumps({name: param.tobytes() for name, param in sorted(params.items())})
    assert len(set(ronde.allgather_object(contents, process_set=process_set))) == 1


def everyone() -> list[int]:
    return list(range(ronde.size()))


def averages() -> None:
    params = parameters(np.float32)
    opt = ronde.DistributedOptimizer(Momentum(params))
    for number in range(STEPS):
        opt.step(gradients(ronde.rank(), number))
    check_parameters(params, reference(everyone()))
    check_identical(params)


def sums_and_scales() -> None:
    params = parameters(np.float32)
    opt = ronde.DistributedOptimizer(
        Momentum(params), op=ronde.Sum, prescale_factor=0.5, postscale_factor=0.25
    )
    for number in range(STEPS):
        opt.step(gradients(ronde.rank(), number))
    check_parameters(params, reference(everyone(), divisor=8.0))


def accumulates() -> None:
    params = parameters(np.float32)
    opt = ronde.DistributedOptimizer(Momentum(params), backward_passes_per_step=3)
    buffers = {"w": np.empty((7, 5), np.float32), "b": np.empty(3, np.float32), "unused": None}
    for number in range(3 * STEPS):
        for name, grad in gradients(ronde.rank(), number).items():
            if grad is not None:
                buffers[name][...] = grad
        opt.step(buffers)
    check_parameters(params, reference(everyone(), passes=3))
    check_identical(params)


def fuses_many_buckets() -> None:
    """Enough for two buckets of float32 beside one of float64, and an array of no elements."""
    shapes = [(3 << 20,), (3 << 20,), (3 << 20,), (0,), (2, 3)]
    grads = [np.full(shape, ronde.rank(), np.float32) for shape in shapes]
    grads.append(np.full(4, ronde.rank(), np.float64))
    seen: list[Any] = []
    ronde.DistributedOptimizer(lambda _, grads: seen.extend(grads))(None, grads)
    for mine, theirs in zip(grads, seen, strict=True):
        assert (theirs.shape, theirs.dtype) == (mine.shape, mine.dtype)
        assert (theirs == (ronde.size() - 1) / 2).all()


def keeps_to_its_process_set() -> None:
    half = ronde.size() // 2
    sets = [ronde.add_process_set(members) for members in (everyone()[:half], everyone()[half:])]
    (mine,) = (each for each in sets if each.included())
    params = parameters(np.float32)
    opt = ronde.DistributedOptimizer(Momentum(params), process_set=mine)
    for number in range(STEPS):
        opt.step(gradients(ronde.rank(), number))
    check_parameters(params, reference(mine.ranks))
    check_identical(params, mine)
    for each in sets:
        ronde.remove_process_set(each)


def goes_on_from_a_pickle() -> None:
    params = parameters(np.float32)
    opt = ronde.DistributedOptimizer(Momentum(params), backward_passes_per_step=2)
    for number in range(2 * STEPS):
        opt = pickle.loads(pickle.dumps(opt))
        opt.step(gradients(ronde.rank(), number))
    check_parameters(opt.params, reference(everyone(), passes=2))


def the_order_of_keys_is_free() -> None:
    params = parameters(np.float32)
    opt = ronde.DistributedOptimizer(Momentum(params))
    for number in range(STEPS):
        items = list(gradients(ronde.rank(), number).items())
        opt.step(dict(items if ronde.rank() else reversed(items)))
    check_parameters(params, reference(everyone()))


def differences_raise_on_all_ranks() -> None:
    one, first = np.ones(3), ronde.rank() == 0
    different: list[Any] = [
        [None, one] if first else [one, None],
        {"a": one} if first else {"b": one},
        [one] if first else [one, one],
        [one] if first else [one.astype(np.float32)],
        one if first else np.ones((3, 1)),
    ]
    seen: list[Any] = []
    opt = ronde.DistributedOptimizer(lambda _, grads: seen.append(grads))
    for grads in different:
        try:
            opt(None, grads)
        except ronde.MismatchError as error:
            assert "DistributedOptimizer" in str(error), error
        else:
            raise AssertionError(f"no error for {grads}")
    assert not seen
    opt(None, [one])
    assert (seen[0][0] == 1.0).all()


CHECKS: dict[str, Callable[[], None]] = {
    check.__name__: check
    for check in (
        averages,
        sums_and_scales,
        accumulates,
        fuses_many_buckets,
        keeps_to_its_process_set,
        goes_on_from_a_pickle,
        the_order_of_keys_is_free,
        differences_raise_on_all_ranks,
    )
}

if __name__ == "__main__":
    ronde.init()
    for check in sys.argv[1:]:
        CHECKS[check]()
        ronde.barrier()
        if ronde.rank() == 0:
            print(check, flush=True)

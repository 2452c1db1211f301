"""Keras 3 on several ranks. The backend is that of KERAS_BACKEND: torch where it says nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ronde
from ranks import on_ranks

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

pytestmark = pytest.mark.frameworks
keras = pytest.importorskip("keras", reason="Keras is not installed")
pytest.importorskip(os.environ["KERAS_BACKEND"], reason="the backend is not installed")
distributed = pytest.importorskip("ronde.keras").DistributedOptimizer

ROWS, COLUMNS, BATCH = 32, 6, 8


def data() -> tuple[Any, Any]:
    random = np.random.default_rng(5)
    x = random.normal(size=(ROWS, COLUMNS)).astype("float32")
    return x, (x @ random.normal(size=(COLUMNS, 1))).astype("float32")


def share() -> tuple[Any, Any]:
    """This rank's part of each batch of all ranks."""
    rows = np.arange(ROWS).reshape(-1, ronde.size(), BATCH // ronde.size())[:, ronde.rank()]
    x, y = data()
    return x[rows.reshape(-1)], y[rows.reshape(-1)]


def fitted(optimizer: Any, rows: tuple[Any, Any], batch: int, epochs: int = 3, **more: Any) -> Any:
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [keras.Input((COLUMNS,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    )
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    model.compile(optimizer, "mse", metrics=["mae"], jit_compile=jit)
    model.fit(*rows, epochs=epochs, batch_size=batch, shuffle=False, verbose=0, **more)
    return model


def require_same(model: Any, other: Any, tolerance: float = 1e-5) -> None:
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def require_same_on_all_ranks(model: Any) -> None:
    weights = ronde.allgather_object([each.tolist() for each in model.get_weights()])
    assert all(each == weights[0] for each in weights)


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.02, clipnorm=0.5),
    "accumulation": lambda: keras.optimizers.Adam(0.02, gradient_accumulation_steps=2),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05)),
}


@on_ranks(1, 2)
def test_training_is_that_of_one_process_on_the_same_batches() -> None:
    for make in OPTIMIZERS.values():
        alone = fitted(make(), data(), BATCH)
        model = fitted(distributed(make()), share(), BATCH // ronde.size())
        require_same(model, alone)
        require_same_on_all_ranks(model)


@on_ranks(2)
def test_compression_and_operations() -> None:
    optimizer = distributed(
        keras.optimizers.SGD(0.05), compression={"dense/kernel": "int8"}, op=ronde.Sum, name="mine"
    )
    require_same_on_all_ranks(fitted(optimizer, share(), BATCH // 2))


@on_ranks(2)
def test_what_is_saved_loads_as_the_plain_optimizer() -> None:
    optimizer = keras.optimizers.Adam(0.02)
    kind, config = type(optimizer), keras.saving.serialize_keras_object(optimizer)
    assert distributed(optimizer) is optimizer and type(optimizer) is kind
    assert keras.saving.serialize_keras_object(optimizer) == config
    model = fitted(optimizer, share(), BATCH // 2)
    path = Path(f"/tmp/ronde-keras-{os.getpid()}.keras")
    try:
        model.save(path)
        loaded = keras.models.load_model(path)
    finally:
        path.unlink(missing_ok=True)
    assert type(loaded.optimizer) is kind and "apply" not in vars(loaded.optimizer)
    require_same(loaded, model, 0.0)
    assert int(loaded.optimizer.iterations) == int(optimizer.iterations) == 12
    distributed(loaded.optimizer)  # and training goes on
    loaded.fit(*share(), epochs=1, batch_size=BATCH // 2, shuffle=False, verbose=0)
    require_same_on_all_ranks(loaded)


@on_ranks(2)
def test_one_rank_gives_its_variables_to_all() -> None:
    from ronde.keras import BroadcastGlobalVariablesCallback

    keras.utils.set_random_seed(ronde.rank())
    model = keras.Sequential(
        [keras.Input((COLUMNS,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]
    )
    model.compile(distributed(keras.optimizers.Adam(0.1 + ronde.rank())), "mse", jit_compile=False)
    before = ronde.broadcast_object(model.get_weights(), 1)
    callback = BroadcastGlobalVariablesCallback(1)
    callback.set_model(model)
    callback.on_train_begin()
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(model.optimizer.learning_rate) == np.float32(1.1)


@on_ranks(2)
def test_metrics_are_averaged() -> None:
    from ronde.keras import MetricAverageCallback

    logs = {"loss": 1.0 + ronde.rank(), "accuracy": np.float32(0.5)}
    MetricAverageCallback().on_epoch_end(0, logs)
    assert logs == {"loss": 1.5, "accuracy": 0.5}
    averages = [MetricAverageCallback()]
    model = fitted(distributed(keras.optimizers.SGD(0.01)), share(), 4, callbacks=averages)
    assert len({str(each) for each in ronde.allgather_object(model.history.history)}) == 1


@on_ranks(2)
def test_the_learning_rate_warms_up() -> None:
    from ronde.keras import LearningRateWarmupCallback

    class Noted(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            rates.append(float(self.model.optimizer.learning_rate))

    rates: list[float] = []
    warm = LearningRateWarmupCallback(0.08, warmup_epochs=2)
    fitted(distributed(keras.optimizers.SGD(0.08)), share(), 4, callbacks=[warm, Noted()])
    expected = [0.04 + 0.04 * i / 8 for i in range(8)] + [0.08] * 4
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


@on_ranks(1)
def test_gradients_that_are_missing_stay_missing() -> None:
    optimizer = distributed(keras.optimizers.SGD(1.0))
    used, unused = keras.Variable(np.ones((2, 2)), name="used"), keras.Variable(1.0, name="unused")
    optimizer.build([used, unused])
    optimizer.apply([keras.ops.ones((2, 2)), None], [used, unused])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(used), np.zeros((2, 2)))
    assert float(keras.ops.convert_to_numpy(unused)) == 1.0


@on_ranks(1)
def test_what_cannot_be_wrapped_is_refused() -> None:
    optimizer = distributed(keras.optimizers.SGD(1.0))
    with pytest.raises(TypeError, match="already"):
        distributed(optimizer)
    with pytest.raises(TypeError, match=r"Keras 3, not 'adam'"):
        distributed("adam")
    with pytest.raises(TypeError, match="op must be"):
        distributed(keras.optimizers.SGD(1.0), op="sum")


def test_without_keras_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ronde.keras")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match="pip install keras"):
        import ronde.keras  # noqa: F401

"""Training with Keras 3 on all ranks, on its backends torch, JAX and TensorFlow.

    import ronde
    import ronde.keras

    ronde.init()
    model.compile(ronde.keras.DistributedOptimizer(keras.optimizers.Adam(1e-3)), "mse")
    model.fit(x, y, callbacks=[ronde.keras.BroadcastGlobalVariablesCallback(0)])

On TensorFlow a model is compiled with `jit_compile=False`: XLA has no way out of a function there.
"""

from __future__ import annotations

try:
    import keras
except ImportError as error:
    raise ImportError(
        f"ronde.keras needs Keras 3 and a backend of it: pip install keras ({error})"
    ) from error
if int(keras.__version__.partition(".")[0]) < 3:
    raise ImportError(f"ronde.keras needs Keras 3, not {keras.__version__}: pip install -U keras")

from .callbacks import (
    BroadcastGlobalVariablesCallback,
    LearningRateWarmupCallback,
    MetricAverageCallback,
)
from .optimizer import DistributedOptimizer

__all__ = [
    "BroadcastGlobalVariablesCallback",
    "DistributedOptimizer",
    "LearningRateWarmupCallback",
    "MetricAverageCallback",
]

"""What `fit` does beside the steps, on several ranks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import ronde

__all__ = [
    "BroadcastGlobalVariablesCallback",
    "LearningRateWarmupCallback",
    "MetricAverageCallback",
]


class BroadcastGlobalVariablesCallback(keras.callbacks.Callback):
    """Give all ranks the variables of one, those of the optimizer included, before the first step.

    So all ranks begin alike, whatever each has drawn or loaded.

    Args:
        root_rank: the rank whose variables count.
    """

    def __init__(self, root_rank: int = 0) -> None:
        super().__init__()
        self.root_rank = root_rank
        self.broadcast_done = False

    def on_train_begin(self, logs: Any = None) -> None:
        if self.broadcast_done:
            return
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        # Not model.variables: the states of random seeds stay those of each rank.
        variables = [*self.model.weights, *optimizer.variables]
        values = [np.array(keras.ops.convert_to_numpy(each)) for each in variables]
        ronde.broadcast_parameters(
            [(each.path, value) for each, value in zip(variables, values, strict=True)],
            self.root_rank,
        )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.broadcast_done = True


class MetricAverageCallback(keras.callbacks.Callback):
    """Average metrics over the ranks at the end of each epoch.

    Put it before callbacks that use metrics, such as `ReduceLROnPlateau`: they see the averages, the same
    on all ranks.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not logs:
            return
        names = sorted(logs)
        mine = np.array([float(logs[name]) for name in names])
        average = ronde.allreduce(mine, name=f"metrics {', '.join(names)}")
        logs.update(zip(names, average.tolist(), strict=True))


class LearningRateWarmupCallback(keras.callbacks.Callback):
    """Raise the learning rate from `initial_lr / size` to `initial_lr`, step by step.

    With n ranks the batch of a step is n times as large, and a learning rate of n times that of one
    process suits it, but not from the first step on (Goyal et al.: Accurate, Large Minibatch SGD, 2017).
    After the warm-up the learning rate is left to other callbacks.

    Args:
        initial_lr: the learning rate after the warm-up; usually that of one process times
            `ronde.size()`.
        warmup_epochs: how many epochs it takes.
        steps_per_epoch: of this rank; by default what `fit` knows, once it knows it.
        verbose: 1 to print the learning rate at the end of the warm-up, on rank 0.
    """

    def __init__(
        self,
        initial_lr: float,
        warmup_epochs: float = 5,
        steps_per_epoch: int | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self.initial_lr = initial_lr
        self.warmup_epochs = warmup_epochs
        self.steps_per_epoch = steps_per_epoch
        self.verbose = verbose
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._epoch >= self.warmup_epochs:
            return
        steps = self.steps_per_epoch or self.params.get("steps")
        if not steps:
            raise ValueError(
                "LearningRateWarmupCallback needs steps_per_epoch, as fit does not know it"
            )
        share = min(1.0, (self._epoch + batch / steps) / self.warmup_epochs)
        self._set(self.initial_lr * (1 + share * (ronde.size() - 1)) / ronde.size())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch < self.warmup_epochs <= epoch + 1:
            self._set(self.initial_lr)
            if self.verbose and ronde.rank() == 0:
                print(
                    f"epoch {epoch + 1}: the warm-up ends with a learning rate of {self.initial_lr}"
                )

    def _set(self, learning_rate: float) -> None:
        self.model.optimizer.learning_rate = learning_rate

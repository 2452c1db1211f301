"""Batch normalisation over the batch of all ranks.

Each rank has the count, the mean and the sum of squared deviations of each channel of its own rows. One
allgather of these lets every rank merge them in the order of the ranks (Chan, Golub, LeVeque: Updating
formulae and a pairwise algorithm for computing sample variances, 1979), so all ranks have the same bits.
The backward pass needs two sums per channel over all rows, which one allreduce adds up.

    with n rows and x' = (x - mean) / std, for the gradient g of the output:
    gradient of x = weight / std * (g - sum(g) / n - x' * sum(g * x') / n)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

import ronde

__all__ = ["SyncBatchNorm"]


class SyncBatchNorm(_BatchNorm):
    """Normalise over the joined batch of all ranks, as `torch.nn.BatchNorm1d` to `3d` do over their own.

    In training, outputs, running statistics and gradients are those of one process with the batches of
    all ranks in one, which may differ in size and be empty. All ranks must call it. The gradients of
    `weight` and `bias` are those of this rank's rows, as an optimizer reduces them. In `eval()` it is
    `BatchNorm`, and sends nothing.

    Statistics of float16 and bfloat16 are computed in float32.

        model = nn.Sequential(nn.Conv2d(3, 16, 3), hvd.SyncBatchNorm(16), nn.ReLU())

    Args:
        num_features: channels, the second dimension of the input.
        eps: added to the variance.
        momentum: the share of the new statistics in the running ones; None for the mean of all.
        affine: whether there are `weight` and `bias`.
        track_running_stats: whether there are running statistics for `eval()`.
        device: of parameters and statistics.
        dtype: of parameters and statistics.

    Shape:
        `(rows, num_features, *)` with any number of further dimensions, in any memory format; the
        output is like the input.

    Raises:
        ValueError: in training, where the input has another shape, the joined batch has fewer than
            two values per channel, or `init` has not been called.
        RondeError: what `ronde.allgather` raises.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise ValueError(
                f"SyncBatchNorm needs an input of shape (rows, {self.num_features}, ...), "
                f"not {tuple(input.shape)}"
            )
        if not input.is_floating_point():
            raise ValueError(f"SyncBatchNorm needs an input of a floating type, not {input.dtype}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training:
            return super().forward(input)
        if not ronde.is_initialized():
            raise ValueError("SyncBatchNorm needs the other ranks in training: call init() first")
        if ronde.size() == 1:
            return super().forward(input)
        local = _local_moments(input.detach())
        rows = ronde.allgather_async(local, "SyncBatchNorm.forward").wait()
        count, mean, variance = _merged(rows)
        if count < 2:
            raise ValueError(
                f"SyncBatchNorm needs more than one value per channel in training, and all ranks together "
                f"have {count:.0f}; the input of this one has shape {tuple(input.shape)}"
            )
        self._update_running(count, mean, variance)
        output: Tensor = _Normalise.apply(
            input, self.weight, self.bias, mean, variance, count, self.eps
        )
        return output

    def _update_running(self, count: float, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        share = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if share is None:
                share = 1.0 / float(self.num_batches_tracked)
        assert share is not None
        unbiased = variance * (count / (count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def _statistics_dtype(input: Tensor) -> torch.dtype:
    return torch.float64 if input.dtype is torch.float64 else torch.float32


def _dimensions(input: Tensor) -> list[int]:
    """All but that of the channels."""
    return [0, *range(2, input.dim())]


def _per_channel(values: Tensor, input: Tensor) -> Tensor:
    return values.reshape(1, -1, *(1,) * (input.dim() - 2))


def _local_moments(input: Tensor) -> Tensor:
    """One row of count, means and sums of squared deviations, in float64: counts stay exact."""
    channels = input.shape[1]
    count = input.numel() // channels
    if count == 0:
        return torch.zeros(1, 1 + 2 * channels, dtype=torch.float64, device=input.device)
    variance, mean = torch.var_mean(
        input.to(_statistics_dtype(input)), dim=_dimensions(input), correction=0
    )
    row = torch.cat([mean.new_tensor([count]), mean, variance]).double()
    row[1 + channels :] *= count
    row[0] = count
    return row[None]


def _merged(rows: Tensor) -> tuple[float, Tensor, Tensor]:
    """Count, mean and variance of all, from the rows of the ranks."""
    channels = (rows.shape[1] - 1) // 2
    counts, means, squares = rows.split([1, channels, channels], dim=1)
    count = counts.sum().clamp(min=1)
    mean = (counts * means).sum(0) / count
    variance = (squares + counts * (means - mean) ** 2).sum(0) / count
    return float(counts.sum()), mean, variance


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: float,
        eps: float,
    ) -> Tensor:
        dtype = _statistics_dtype(input)
        mean, inverse_std = mean.to(dtype), (variance + eps).rsqrt().to(dtype)
        ctx.save_for_backward(input, weight, mean, inverse_std)
        ctx.count = count
        scale = inverse_std if weight is None else inverse_std * weight
        output = (input - _per_channel(mean, input)) * _per_channel(scale, input)
        if bias is not None:
            output += _per_channel(bias, input)
        return output.to(input.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, inverse_std = ctx.saved_tensors
        gradient = gradient.to(mean.dtype)
        normalised = (input - _per_channel(mean, input)) * _per_channel(inverse_std, input)
        of_bias = gradient.sum(_dimensions(input))
        of_weight = (gradient * normalised).sum(_dimensions(input))
        of_input = None
        if ctx.needs_input_grad[0]:
            sums = torch.cat([of_bias, of_weight])
            ronde.allreduce_async_(sums, ronde.Sum, "SyncBatchNorm.backward").wait()
            of_all, of_all_normalised = (sums / ctx.count).chunk(2)
            scale = inverse_std if weight is None else inverse_std * weight
            normalised *= _per_channel(of_all_normalised, input)
            of_input = gradient - _per_channel(of_all, input)
            of_input -= normalised
            of_input = (of_input * _per_channel(scale, input)).to(input.dtype)
        like = None if weight is None else weight.dtype
        return (
            of_input,
            of_weight.to(like) if ctx.needs_input_grad[1] else None,
            of_bias.to(like) if ctx.needs_input_grad[2] else None,
            *(None,) * 4,
        )

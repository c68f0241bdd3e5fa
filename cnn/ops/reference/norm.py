"""Batch normalisation in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.values import Gradients, Running


def mean_of(x: Tensor, axis: int) -> Tensor:
    """The mean along an axis, which has one place then, without the rounding errors of a sum of large numbers.

    The mean of what is left of x when an approximate mean is subtracted is small, and so is its error.
    """
    mean = x.mean(axis, keepdim=True)
    return mean + (x - mean).mean(axis, keepdim=True)


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, running: Running, *, training: bool) -> tuple[Tensor, Tensor]:
    rows = x.flatten(1)  # [C, L]
    mean, var = running.mean, running.var
    if training:
        mean = mean_of(rows, 1)[:, 0]
        var = (rows - mean[:, None]).square().mean(1)
        running.mean.lerp_(mean, running.momentum)
        running.var.lerp_(var * (rows.shape[1] / (rows.shape[1] - 1)), running.momentum)
    rstd = (var + running.eps).rsqrt()
    y = (rows - mean[:, None]) * (weight * rstd)[:, None] + bias[:, None]
    return y.view(x.shape), torch.cat([mean[None], rstd[None]])


def batch_norm_backward(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None
) -> Tensor:
    sums = batch_norm_sums(dy, x, statistics)
    if gradients is not None:
        dweight, dbias = gradients
        dbias += sums[0]
        dweight += sums[1]
    return batch_norm_dx(dy, x, statistics, weight, sums, x[0].numel())


def batch_norm_sums(dy: Tensor, x: Tensor, statistics: Tensor) -> Tensor:
    g = dy.flatten(1)
    return torch.cat([g.sum(1)[None], (g * _normalised(x, statistics)).sum(1)[None]])


def batch_norm_dx(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, sums: Tensor, count: Tensor | float
) -> Tensor:
    total, product = sums[0][:, None], sums[1][:, None]
    g = dy.flatten(1) - total / count - _normalised(x, statistics) * product / count
    dx: Tensor = (weight * statistics[1])[:, None] * g
    return dx.view(x.shape)


def _normalised(x: Tensor, statistics: Tensor) -> Tensor:
    """xhat, [C, L]."""
    mean, rstd = statistics[0], statistics[1]
    return (x.flatten(1) - mean[:, None]) * rstd[:, None]

"""Batch normalisation on compiled loops."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cnn.ops.cpu.arrays import Array, array, channels, flat
from cnn.ops.cpu.kernels import norm as kernels
from cnn.ops.memory import empty
from cnn.ops.values import Gradients, Running


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, running: Running, *, training: bool) -> tuple[Tensor, Tensor]:
    return normalise(x, weight, bias, running, training, rectify=False)


def normalise(
    x: Tensor, weight: Tensor, bias: Tensor, running: Running, training: bool, rectify: bool
) -> tuple[Tensor, Tensor]:
    """`batch_norm`, followed by a ReLU if `rectify`."""
    statistics = torch.empty((2, len(weight)), dtype=x.dtype)
    y = empty(tuple(x.shape), like=x)
    moments = flat(running.mean), flat(running.var), training, running.momentum, running.eps
    kernels.batch_norm(channels(x), array(weight), array(bias), *moments, rectify, channels(y), statistics.numpy())
    return y, statistics


def batch_norm_backward(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None
) -> Tensor:
    return differentiate(dy, None, x, statistics, weight, gradients)


def differentiate(
    dy: Tensor, y: Tensor | None, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None
) -> Tensor:
    """`batch_norm_backward`; y, if given, is the output of a ReLU through which dy goes first."""
    dx = empty(tuple(x.shape), like=x)
    dy_rows = channels(dy)
    y_rows = dy_rows if y is None else channels(y)
    scale = array(weight)
    kernels.batch_norm_backward(
        dy_rows, y_rows, y is not None, channels(x), statistics.numpy(), scale, channels(dx), *added(gradients, scale)
    )
    return dx


def added(gradients: Gradients | None, like: Array) -> tuple[Array, Array]:
    """dweight and dbias, or scratch arrays if they aren't needed."""
    if gradients is None:
        return np.empty_like(like), np.empty_like(like)
    return flat(gradients[0]), flat(gradients[1])

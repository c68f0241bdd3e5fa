"""Batch norm, max pool and ReLU on one compiled loop over the channels."""

from __future__ import annotations

import numba
import torch
from torch import Tensor

from cnn.ops.cpu.arrays import array, flat, lines
from cnn.ops.cpu.kernels import norm as kernels
from cnn.ops.cpu.norm import added, differentiate, normalise
from cnn.ops.memory import empty
from cnn.ops.values import Gradients, PoolReLU, Route, Running
from cnn.ops.window import winner_dtype

MAX_THREADS = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
"""As many as a process can ever have: a call may be replayed with more threads than it was recorded with."""


def norm_pool_relu(
    x: Tensor, weight: Tensor, bias: Tensor, running: Running, after: PoolReLU, *, training: bool
) -> tuple[Tensor, Tensor, Route]:
    window, rectify = after
    if window is None:
        y, statistics = normalise(x, weight, bias, running, training, rectify)
        return y, statistics, Route(y, None)
    batch = x.shape[-1]
    y = empty((x.shape[0], *window.output_size(tuple(x.shape[1:-1])), batch), like=x)
    winner = empty(tuple(y.shape), like=x, dtype=winner_dtype(window))
    statistics = torch.empty((2, len(weight)), dtype=x.dtype)
    x_lines = lines(x)
    planes = empty((MAX_THREADS, *x_lines.shape[1:]), like=x)
    moments = flat(running.mean), flat(running.var), training, running.momentum, running.eps
    pool = rectify, window.on_three_axes(), batch, planes.numpy()
    kernels.batch_norm_pool(
        x_lines, array(weight), array(bias), *moments, *pool, lines(y), lines(winner), statistics.numpy()
    )
    return y, statistics, Route(winner, window)


def norm_pool_relu_backward(
    dy: Tensor, x: Tensor, statistics: Tensor, weight: Tensor, gradients: Gradients | None, route: Route
) -> Tensor:
    values, window = route
    if window is None:
        return differentiate(dy, values, x, statistics, weight, gradients)
    dx = empty(tuple(x.shape), like=x)
    scale = array(weight)
    pool = window.on_three_axes(), dy.shape[-1]
    kernels.batch_norm_pool_backward(
        lines(dy), lines(values), lines(x), statistics.numpy(), scale, *pool, lines(dx), *added(gradients, scale)
    )
    return dx

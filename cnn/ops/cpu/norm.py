"""The functions of `reference.py` on compiled CPU kernels: they allocate and reshape.

The loops are in `kernels.py` and `window_kernels.py`.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from cnn.ops import kernels, norm_kernels, reference, window_kernels
from cnn.ops.memory import Array, array, empty, flat, own
from cnn.ops.reference import require, require_vectors, winner_dtype
from cnn.ops.window import Sizes, Window


def take_examples(x: Tensor, rows: Tensor, chosen: Tensor) -> None:
    require(x, (rows.shape[1], len(chosen)), "x")
    if kernels.take_examples(array(rows), array(chosen), own(x, "x").reshape(x.shape)):
        raise IndexError(f"not all chosen examples are among the {len(rows)} that there are")


def im2col(x: Tensor, window: Window) -> Tensor:
    channels, *size, batch = x.shape
    columns = empty((channels, *window.kernel, *window.output_size(tuple(size)), batch), like=x)
    window_kernels.im2col(_lines(x), *window.on_three_axes(), batch, _rows(columns))
    return columns


def col2im(columns: Tensor, size: Sizes, window: Window) -> Tensor:
    batch = columns.shape[-1]
    require(columns, (columns.shape[0], *window.kernel, *window.output_size(size), batch), "columns")
    dx = empty((columns.shape[0], *size, batch), like=columns)
    window_kernels.col2im(_rows(columns), *window.on_three_axes(), batch, _lines(dx))
    return dx


def max_pool(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    channels, *size, batch = x.shape
    y = empty((channels, *window.output_size(tuple(size)), batch), like=x)
    winner = empty(tuple(y.shape), like=x, dtype=winner_dtype(window))
    window_kernels.max_pool(_lines(x), *window.on_three_axes(), batch, _lines(y), _lines(winner))
    return y, winner


def max_pool_backward(dy: Tensor, winner: Tensor, size: Sizes, window: Window) -> Tensor:
    require(dy, (dy.shape[0], *window.output_size(size), dy.shape[-1]), "dy")
    require(winner, tuple(dy.shape), "winner")
    dx = empty((dy.shape[0], *size, dy.shape[-1]), like=dy)
    window_kernels.max_pool_backward(_lines(dy), _lines(winner), *window.on_three_axes(), dy.shape[-1], _lines(dx))
    return dx


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    training: bool,
    momentum: float,
    eps: float,
    window: Window | None = None,
    rectify: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    require_vectors(x, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    statistics = torch.empty((2, len(weight)), dtype=x.dtype)
    affine = array(weight), array(bias)
    running = own(running_mean, "running_mean"), own(running_var, "running_var"), training, momentum, eps
    if window is None:
        y = empty(tuple(x.shape), like=x)
        norm_kernels.batch_norm(_channels(x), *affine, *running, rectify, _channels(y), statistics.numpy())
        return y, statistics, y if rectify else None
    batch = x.shape[-1]
    y = empty((x.shape[0], *window.output_size(tuple(x.shape[1:-1])), batch), like=x)
    winner = empty(tuple(y.shape), like=x, dtype=winner_dtype(window))
    lines = _lines(x)
    planes = empty((numba.get_num_threads(), *lines.shape[1:]), like=x)
    pool = rectify, window.on_three_axes(), batch, planes.numpy()
    norm_kernels.batch_norm_pool(lines, *affine, *running, *pool, _lines(y), _lines(winner), statistics.numpy())
    return y, statistics, winner


def batch_norm_backward(
    dy: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor,
    dweight: Tensor | None,
    dbias: Tensor | None,
    route: Tensor | None = None,
    window: Window | None = None,
) -> Tensor:
    require_vectors(x, weight=weight, dweight=dweight, dbias=dbias)
    require(statistics, (2, len(weight)), "statistics")
    require(dy, tuple(x.shape if route is None else route.shape), "dy")
    dx = empty(tuple(x.shape), like=x)
    scales = statistics.numpy(), array(weight)
    wanted = [
        np.empty_like(scales[1]) if gradient is None else own(gradient, name)
        for name, gradient in (("dweight", dweight), ("dbias", dbias))
    ]
    if window is None or route is None:
        gradient = _channels(dy)
        through = gradient if route is None else _channels(route)
        norm_kernels.batch_norm_backward(
            gradient, through, route is not None, _channels(x), *scales, _channels(dx), *wanted
        )
    else:
        pool = window.on_three_axes(), dy.shape[-1]
        norm_kernels.batch_norm_pool_backward(_lines(dy), _lines(route), _lines(x), *scales, *pool, _lines(dx), *wanted)
    return dx


def relu(x: Tensor) -> Tensor:
    y = empty(tuple(x.shape), like=x)
    kernels.relu(flat(x), flat(y))
    return y


def relu_backward(dy: Tensor, y: Tensor) -> Tensor:
    require(dy, tuple(y.shape), "dy")
    dx = empty(tuple(y.shape), like=y)
    kernels.relu_backward(flat(dy), flat(y), flat(dx))
    return dx


def adam(
    data: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    betas: tuple[float, float],
    eps: float,
    step: float,
    correction: float,
) -> None:
    for name, vector in (("gradient", gradient), ("mean", mean), ("square", square)):
        require(vector, tuple(data.shape), name)
    vectors = own(data, "data"), flat(gradient), own(mean, "mean"), own(square, "square")
    kernels.adam(*vectors, *vectors[0].dtype.type([*betas, 1 - betas[0], 1 - betas[1], eps, step, 1 / correction]))


MOST_LOGITS = 1 << 14
"""Beyond so many, torch's exponential of many values at once wins over doing everything in one pass."""


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    require(target, logits.shape[1:], "target")
    if weight is not None:
        require(weight, logits.shape[:1], "weight")
    if logits.numel() > MOST_LOGITS:
        return reference.cross_entropy(logits, target, weight, label_smoothing)
    gradient = empty(tuple(logits.shape), like=logits)
    weights = np.ones(len(logits), dtype=gradient.numpy().dtype) if weight is None else array(weight)
    value, strays = kernels.cross_entropy(array(logits), array(target), weights, label_smoothing, gradient.numpy())
    if strays:
        raise IndexError(f"{strays} targets are not among the classes 0 to {len(logits) - 1}")
    return torch.tensor(value, dtype=logits.dtype), gradient


def _channels(tensor: Tensor) -> Array:
    """[C, *S, N] as [C, L]."""
    return array(tensor).reshape(tensor.shape[0], -1)


def _lines(tensor: Tensor) -> Array:
    """[C, *S, N] as [C, D, H, W N], missing axes of size one."""
    channels, *size, batch = tensor.shape
    depth, height, width = (*(1,) * (3 - len(size)), *size)
    return array(tensor).reshape(channels, depth, height, width * batch)


def _rows(columns: Tensor) -> Array:
    """[C, *K, *So, N] as [C Kd Kh Kw, Do, Ho, Wo N]."""
    axes = (columns.dim() - 2) // 2
    return _lines(columns.flatten(0, axes))

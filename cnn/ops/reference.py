"""The arithmetic of the layers in plain torch operations: the text to read, and what runs on any device.

Every function here has a twin of the same name and signature in `compiled.py`; `cnn.ops` chooses between them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnn.ops.memory import empty
from cnn.ops.window import Sizes, Window

ALL = (slice(None),)


def require(tensor: Tensor, shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError where a tensor hasn't the shape that goes with the others; compiled loops would not notice."""
    if tensor.shape != shape:
        raise ValueError(f"{name} is {list(tensor.shape)}, the other tensors call for {list(shape)}")


def im2col(x: Tensor, window: Window) -> Tensor:
    """columns[c, tap, position, n] = x[c, position * stride + tap - padding, n], zero outside.

    x [C, *S, N] -> columns [C, *K, *So, N]. A convolution is then one matrix product.
    """
    channels, *size, batch = x.shape
    output_size = window.output_size(tuple(size))
    padded = _pad(x, window.padding)
    columns = empty((channels, *window.kernel, *output_size, batch), like=x)
    for tap in window.taps():
        columns[ALL + tap] = padded[ALL + window.reach(tap, output_size)]
    return columns


def col2im(columns: Tensor, size: Sizes, window: Window) -> Tensor:
    """The adjoint of im2col: every column entry is added to the input value it was read from.

    columns [C, *K, *So, N] -> dx [C, *S, N].
    """
    channels, batch = columns.shape[0], columns.shape[-1]
    output_size = window.output_size(size)
    require(columns, (channels, *window.kernel, *output_size, batch), "columns")
    padded_size = tuple(extent + 2 * padding for extent, padding in zip(size, window.padding, strict=True))
    padded = columns.new_zeros((channels, *padded_size, batch))
    for tap in window.taps():
        padded[ALL + window.reach(tap, output_size)] += columns[ALL + tap]
    return padded[ALL + _inside(size, window.padding)].contiguous()


def max_pool(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """y = the largest value in each window, winner = the number of its tap; the first wins a tie, NaN wins always.

    x [C, *S, N] -> y, winner [C, *So, N].
    """
    channels, *size, batch = x.shape
    refuse_padding(window)
    output_size = window.output_size(tuple(size))
    y = x.new_full((channels, *output_size, batch), -torch.inf)
    winner = torch.zeros(y.shape, dtype=winner_dtype(window), device=x.device)
    for number, tap in enumerate(window.taps()):
        candidate = x[ALL + window.reach(tap, output_size)]
        better = (candidate > y) | candidate.isnan()
        y = torch.where(better, candidate, y)
        winner[better] = number
    return y, winner


def max_pool_backward(dy: Tensor, winner: Tensor, size: Sizes, window: Window) -> Tensor:
    """dx: each dy goes to the input value that won its window.

    dy, winner [C, *So, N] -> dx [C, *S, N].
    """
    output_size = window.output_size(size)
    refuse_padding(window)
    require(dy, (dy.shape[0], *output_size, dy.shape[-1]), "dy")
    require(winner, tuple(dy.shape), "winner")
    dx = dy.new_zeros((dy.shape[0], *size, dy.shape[-1]))
    for number, tap in enumerate(window.taps()):
        dx[ALL + window.reach(tap, output_size)] += dy.masked_fill(winner != number, 0)
    return dx


def winner_dtype(window: Window) -> torch.dtype:
    """The smallest type that numbers the taps of a window."""
    return torch.uint8 if math.prod(window.kernel) <= 256 else torch.int32


def refuse_padding(window: Window) -> None:
    """Pools don't pad yet; a padded window would read beside the input."""
    if any(window.padding):
        raise ValueError(f"max_pool has no padding, the window asks for {list(window.padding)}")


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y = weight * (x - mean) / sqrt(var + eps) + bias, with each row's own mean and (biased) variance.

    x [C, L], weight, bias [C] -> y [C, L], mean [C], var [C].
    """
    require(weight, x.shape[:1], "weight")
    require(bias, x.shape[:1], "bias")
    mean = x.mean(1)
    centred = x - mean[:, None]
    var = centred.square().mean(1)
    y = centred * (weight * (var + eps).rsqrt())[:, None] + bias[:, None]
    return y, mean, var


def batch_norm_backward(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of batch_norm; xhat = (x - mean) * rstd depends on the whole row through mean and variance.

    dbias = sum dy,  dweight = sum dy * xhat,  dx = weight * rstd * (dy - dbias / L - xhat * dweight / L).
    dy, x [C, L], mean, rstd, weight [C] -> dx [C, L], dweight [C], dbias [C].
    """
    require(dy, tuple(x.shape), "dy")
    for name, vector in (("mean", mean), ("rstd", rstd), ("weight", weight)):
        require(vector, x.shape[:1], name)
    xhat = (x - mean[:, None]) * rstd[:, None]
    dbias = dy.sum(1)
    dweight = (dy * xhat).sum(1)
    length = x.shape[1]
    dx = (weight * rstd)[:, None] * (dy - dbias[:, None] / length - xhat * dweight[:, None] / length)
    return dx, dweight, dbias


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0), elementwise; NaN stays NaN."""
    return x.clamp(min=0)


def relu_backward(dy: Tensor, y: Tensor) -> Tensor:
    """dx = dy where y > 0, else 0."""
    require(dy, tuple(y.shape), "dy")
    return dy.masked_fill(y <= 0, 0)


def _pad(x: Tensor, padding: Sizes) -> Tensor:
    """x with `padding` zeros on both sides of each spatial axis."""
    if not any(padding):
        return x
    channels, *size, batch = x.shape
    padded_size = (extent + 2 * width for extent, width in zip(size, padding, strict=True))
    padded = x.new_zeros((channels, *padded_size, batch))
    padded[ALL + _inside(tuple(size), padding)] = x
    return padded


def _inside(size: Sizes, padding: Sizes) -> tuple[slice, ...]:
    """Where the unpadded input lies within the padded one."""
    return tuple(slice(width, width + extent) for extent, width in zip(size, padding, strict=True))

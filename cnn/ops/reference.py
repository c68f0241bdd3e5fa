"""The arithmetic of the layers in plain torch operations: the text to read, and what runs on any device.

Every function here has a twin of the same name and signature in `compiled.py`; `cnn.ops` chooses between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.memory import empty
from cnn.ops.padding import CHANNELS, inside, pad, room
from cnn.ops.window import Sizes, Window


def require(tensor: Tensor, shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError where a tensor hasn't the shape that goes with the others; compiled loops would not notice."""
    if tensor.shape != shape:
        raise ValueError(f"{name} is {list(tensor.shape)}, the other tensors call for {list(shape)}")


def im2col(x: Tensor, window: Window) -> Tensor:
    """columns[c, tap, position, n] = x[c, position * stride + tap * dilation - before, n], zero outside.

    x [C, *S, N] -> columns [C, *K, *So, N]. A convolution is then one matrix product.
    """
    channels, *size, batch = x.shape
    output_size = window.output_size(tuple(size))
    padded = pad(x, window, fill=0)
    columns = empty((channels, *window.kernel, *output_size, batch), like=x)
    for tap in window.taps():
        columns[CHANNELS + tap] = padded[CHANNELS + window.reach(tap, output_size)]
    return columns


def col2im(columns: Tensor, size: Sizes, window: Window) -> Tensor:
    """The adjoint of im2col: every column entry is added to the input value it was read from.

    columns [C, *K, *So, N] -> dx [C, *S, N].
    """
    channels, batch = columns.shape[0], columns.shape[-1]
    output_size = window.output_size(size)
    require(columns, (channels, *window.kernel, *output_size, batch), "columns")
    padded = columns.new_zeros((channels, *room(size, window), batch))
    for tap in window.taps():
        padded[CHANNELS + window.reach(tap, output_size)] += columns[CHANNELS + tap]
    return padded[CHANNELS + inside(size, window)].contiguous()


def max_pool(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """y = the largest value in each window, winner = the number of its tap; the first wins a tie, NaN wins always.

    Padding never wins, as if it were -inf. x [C, *S, N] -> y, winner [C, *So, N].
    """
    channels, *size, batch = x.shape
    output_size = window.output_size(tuple(size))
    padded = pad(x, window, fill=-torch.inf)
    on_input = pad(torch.ones_like(x[:1, ..., :1], dtype=torch.bool), window, fill=False)
    y = x.new_full((channels, *output_size, batch), -torch.inf)
    winner = torch.zeros(y.shape, dtype=winner_dtype(window), device=x.device)
    untouched = torch.ones(y.shape, dtype=torch.bool, device=x.device)
    for number, tap in enumerate(window.taps()):
        here = CHANNELS + window.reach(tap, output_size)
        candidate = padded[here]
        better = (candidate > y) | candidate.isnan() | (untouched & on_input[here])
        y = torch.where(better, candidate, y)
        winner[better] = number
        untouched &= ~on_input[here]
    return y, winner


def max_pool_backward(dy: Tensor, winner: Tensor, size: Sizes, window: Window) -> Tensor:
    """dx: each dy goes to the input value that won its window.

    dy, winner [C, *So, N] -> dx [C, *S, N].
    """
    channels, batch = dy.shape[0], dy.shape[-1]
    output_size = window.output_size(size)
    require(dy, (channels, *output_size, batch), "dy")
    require(winner, tuple(dy.shape), "winner")
    padded = dy.new_zeros((channels, *room(size, window), batch))
    for number, tap in enumerate(window.taps()):
        padded[CHANNELS + window.reach(tap, output_size)] += dy.masked_fill(winner != number, 0)
    return padded[CHANNELS + inside(size, window)].contiguous()


def winner_dtype(window: Window) -> torch.dtype:
    """The smallest type that numbers the taps of a window."""
    return torch.uint8 if window.tap_count <= 256 else torch.int32


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

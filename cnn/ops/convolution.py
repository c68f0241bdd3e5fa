"""Convolution in any number of dimensions, as matrix products on columns of input values."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.dispatch import col2im, im2col
from cnn.ops.memory import empty
from cnn.ops.window import Sizes, Window


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """y = weight @ im2col(x) + bias.

    Entry by entry, y[o, p, n] = bias[o] + sum over c, k of weight[o, c, k] * x[c, p * stride + k - padding, n].
    x [C, *S, N], weight [O, C, *K], bias [O] -> y [O, *So, N].
    """
    outputs = weight.shape[0]
    output_size = window.output_size(tuple(x.shape[1:-1]))
    columns = im2col(x, window).view(weight[0].numel(), -1)  # [C K, So N]
    y = empty((outputs, *output_size, x.shape[-1]), like=x)
    torch.mm(weight.view(outputs, -1), columns, out=y.view(outputs, -1))  # [O, C K] @ [C K, So N] -> [O, So N]
    if bias is not None:
        y.view(outputs, -1).add_(bias[:, None])
    return y


def conv_backward_input(dy: Tensor, weight: Tensor, size: Sizes, window: Window) -> Tensor:
    """dx = col2im(weight^T @ dy): each output's gradient goes back along the taps that made it.

    dy [O, *So, N], weight [O, C, *K] -> dx [C, *S, N], S being `size`.
    """
    outputs, *output_size, batch = dy.shape
    columns = empty((*weight.shape[1:], *output_size, batch), like=dy)
    flat = columns.view(weight[0].numel(), -1)
    torch.mm(weight.view(outputs, -1).t(), dy.reshape(outputs, -1), out=flat)  # [C K, O] @ [O, So N] -> [C K, So N]
    return col2im(columns, size, window)


def add_conv_backward_weight(x: Tensor, dy: Tensor, window: Window, dweight: Tensor) -> None:
    """dweight += dy @ im2col(x)^T.

    x [C, *S, N], dy [O, *So, N], dweight [O, C, *K]. The columns are made anew: to keep them takes prod(K) times x.
    """
    outputs = dy.shape[0]
    columns = im2col(x, window).view(dweight[0].numel(), -1)
    dweight.view(outputs, -1).addmm_(dy.reshape(outputs, -1), columns.t())  # [O, So N] @ [So N, C K] -> [O, C K]

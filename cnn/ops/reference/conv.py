"""Convolution as a matrix product per group, on columns of input values.

weight [O, C/G, *K] is viewed as [G, O/G, C/G K], the columns as [G, C/G K, So N], y and dy as [G, O/G, So N].
The columns come from the fastest backend that makes them. Derived in docs/convolution.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.columns import col2im, im2col
from cnn.ops.memory import empty
from cnn.ops.window import Sizes, Window


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
    """y = weight @ im2col(x) + bias."""
    outputs = weight.shape[0]
    y = empty((outputs, *window.output_size(tuple(x.shape[1:-1])), x.shape[-1]), like=x)
    torch.bmm(_matrices(weight, groups), _columns(x, window, groups), out=_matrices(y, groups))
    if bias is not None:
        y.view(outputs, -1).add_(bias[:, None])
    return y


def conv_backward_input(dy: Tensor, weight: Tensor, size: Sizes, window: Window, groups: int) -> Tensor:
    """dx = col2im(weight^T @ dy)."""
    channels = groups * weight.shape[1]
    columns = empty((channels * window.tap_count, *dy.shape[1:]), like=dy)
    torch.bmm(_matrices(weight, groups).transpose(1, 2), _matrices(dy, groups), out=_matrices(columns, groups))
    if window.is_pointwise:
        return columns
    return col2im(columns.view(channels, *window.kernel, *dy.shape[1:]), size, window)


def add_conv_backward_weight(
    x: Tensor, dy: Tensor, window: Window, dweight: Tensor, groups: int, dbias: Tensor | None
) -> None:
    """dweight += dy @ im2col(x)^T. The columns are made again: keeping them would take up to prod(K) times x."""
    _matrices(dweight, groups).baddbmm_(_matrices(dy, groups), _columns(x, window, groups).transpose(1, 2))
    if dbias is not None:
        dbias += dy.flatten(1).sum(1)


def _columns(x: Tensor, window: Window, groups: int) -> Tensor:
    """The values under the window at every position, [G, C/G K, So N]; a view of x if that is a single value."""
    if window.is_pointwise:
        return _matrices(x, groups)
    columns = im2col(x, window)  # [C, *K, *So, N]
    return _matrices(columns.flatten(0, len(window.kernel)), groups)


def _matrices(tensor: Tensor, groups: int) -> Tensor:
    """[R, ...] viewed as [G, R/G, everything else]."""
    rows = tensor.shape[0]
    return tensor.contiguous().view(groups, rows // groups, -1)

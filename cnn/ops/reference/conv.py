"""Convolution in any number of dimensions, as matrix products on columns of input values, a product for each group.

With G groups, the input channels and the filters are cut into G parts that know nothing of each other:
weight [O, C/G, *K] is seen as [G, O/G, C/G K], the columns as [G, C/G K, So N], y and dy as [G, O/G, So N].
Derived in docs/convolution.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.ops.dispatch import col2im, im2col
from cnn.ops.memory import empty
from cnn.ops.reference import require
from cnn.ops.window import Sizes, Window


def require_fitting(weight: Tensor, window: Window, groups: int, other: Tensor, bias: Tensor | None = None) -> None:
    """Raise ValueError where weight [O, C/G, *K] or bias [O] don't fit the window, the groups or the other's type."""
    require(weight, (weight.shape[0] // groups * groups, weight.shape[1], *window.kernel), "weight")
    if bias is not None:
        require(bias, weight.shape[:1], "bias")
    for tensor in (weight, bias):
        if tensor is not None and tensor.dtype != other.dtype:
            raise ValueError(f"the weights are {tensor.dtype}, what they meet is {other.dtype}: give one type")


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int = 1) -> Tensor:
    """y = weight @ im2col(x) + bias.

    Entry by entry, with c running over the channels of o's group,
    y[o, p, n] = bias[o] + sum over c, k of weight[o, c, k] * x[c, p * stride + k * dilation - before, n].
    x [C, *S, N], weight [O, C/G, *K], bias [O] -> y [O, *So, N].
    """
    outputs = weight.shape[0]
    require_fitting(weight, window, groups, x, bias)
    require(x, (groups * weight.shape[1], *x.shape[1:]), "x")
    y = empty((outputs, *window.output_size(tuple(x.shape[1:-1])), x.shape[-1]), like=x)
    torch.bmm(_matrices(weight, groups), _columns(x, window, groups), out=_matrices(y, groups))
    if bias is not None:
        y.view(outputs, -1).add_(bias[:, None])
    return y


def conv_backward_input(dy: Tensor, weight: Tensor, size: Sizes, window: Window, groups: int = 1) -> Tensor:
    """dx = col2im(weight^T @ dy): each output's gradient goes back along the taps that made it.

    dy [O, *So, N], weight [O, C/G, *K] -> dx [C, *S, N], S being `size`.
    """
    channels = groups * weight.shape[1]
    require_fitting(weight, window, groups, dy)
    require(dy, (weight.shape[0], *window.output_size(size), dy.shape[-1]), "dy")
    columns = empty((channels * window.tap_count, *dy.shape[1:]), like=dy)
    torch.bmm(_matrices(weight, groups).transpose(1, 2), _matrices(dy, groups), out=_matrices(columns, groups))
    if window.is_pointwise:
        return columns
    return col2im(columns.view(channels, *window.kernel, *dy.shape[1:]), size, window)


def add_conv_backward_weight(
    x: Tensor, dy: Tensor, window: Window, dweight: Tensor, groups: int = 1, dbias: Tensor | None = None
) -> None:
    """dweight += dy @ im2col(x)^T, and dbias[o] += sum of dy[o] where there is a bias.

    x [C, *S, N], dy [O, *So, N], dweight [O, C/G, *K], dbias [O]. The columns are made anew: to keep them takes up to
    prod(K) times x.
    """
    require_fitting(dweight, window, groups, x, dbias)
    require_fitting(dweight, window, groups, dy)
    require(x, (groups * dweight.shape[1], *x.shape[1:]), "x")
    require(dy, (dweight.shape[0], *window.output_size(tuple(x.shape[1:-1])), x.shape[-1]), "dy")
    if not dweight.is_contiguous():
        raise ValueError("dweight is changed in place and has to be contiguous")
    _matrices(dweight, groups).baddbmm_(_matrices(dy, groups), _columns(x, window, groups).transpose(1, 2))
    if dbias is not None:
        dbias += dy.flatten(1).sum(1)


def _columns(x: Tensor, window: Window, groups: int) -> Tensor:
    """What every filter meets at every position, [G, C/G K, So N]; a view of x where that is one value."""
    if window.is_pointwise:
        return _matrices(x, groups)
    columns = im2col(x, window)  # [C, *K, *So, N]
    return _matrices(columns.flatten(0, len(window.kernel)), groups)


def _matrices(tensor: Tensor, groups: int) -> Tensor:
    """[R, ...] as [G, R/G, everything else]."""
    rows = tensor.shape[0]
    return tensor.contiguous().view(groups, rows // groups, -1)

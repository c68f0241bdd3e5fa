"""The values under a window as columns of a matrix, so that a convolution is one matrix product."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.backend import choose
from cnn.ops.checks import check_shape
from cnn.ops.reference import columns as reference
from cnn.ops.window import Sizes, Window


def im2col(x: Tensor, window: Window) -> Tensor:
    """columns[c, tap, position, n] = x[c, position * stride + tap * dilation - before, n], zero outside.

    x [C, *S, N] -> columns [C, *K, *So, N].
    """
    return choose(reference.im2col, x)(x, window)


def col2im(columns: Tensor, size: Sizes, window: Window) -> Tensor:
    """The adjoint of im2col: adds every entry to the input value that it was read from.

    columns [C, *K, *So, N] -> dx [C, *S, N], S being `size`.
    """
    check_shape(columns, (columns.shape[0], *window.kernel, *window.output_size(size), columns.shape[-1]), "columns")
    return choose(reference.col2im, columns)(columns, size, window)

"""Matrix products on compiled loops: with few examples or few outputs they are faster than a BLAS, and never slower by
much; and the number of threads doesn't change the order of their sums.
"""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cpu.arrays import array, flat
from cnn.ops.cpu.conv import rows_of_blocks
from cnn.ops.cpu.kernels import product as kernels
from cnn.ops.cpu.kernels.conv import add_bias_gradient
from cnn.ops.memory import empty


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    outputs, inputs = weight.shape
    y = empty((outputs, x.shape[1]), like=x)
    kernels.fill_rows(flat(x)[:0] if bias is None else flat(bias), flat(y), x.shape[1])
    kernels.add_product(rows_of_blocks(outputs))(flat(weight), inputs, 1, flat(x), inputs, flat(y), x.shape[1])
    return y


def linear_backward_input(dy: Tensor, weight: Tensor) -> Tensor:
    outputs, inputs = weight.shape
    dx = empty((inputs, dy.shape[1]), like=dy)
    kernels.fill_rows(flat(dy)[:0], flat(dx), dy.shape[1])
    kernels.add_product(rows_of_blocks(inputs))(flat(weight), 1, inputs, flat(dy), outputs, flat(dx), dy.shape[1])
    return dx


def add_linear_backward_weight(x: Tensor, dy: Tensor, dweight: Tensor, dbias: Tensor | None) -> None:
    (outputs, inputs), batch = dweight.shape, x.shape[1]
    turned = empty((batch, inputs), like=x)
    kernels.transpose(array(x), turned.numpy())
    product = kernels.add_product(rows_of_blocks(outputs))
    product(flat(dy), batch, 1, flat(turned), batch, flat(dweight), inputs)
    if dbias is not None:
        add_bias_gradient(flat(dy), batch, flat(dbias))

"""Matrix products on compiled loops: with few examples or few outputs they are faster than a BLAS, and never slower by
much; and the number of threads doesn't change the order of their sums.
"""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cpu.arrays import array, flat
from cnn.ops.cpu.codegen.emitter import VECTOR_BYTES
from cnn.ops.cpu.conv import add_row_products, rows_of_blocks
from cnn.ops.cpu.kernels import product as kernels
from cnn.ops.cpu.kernels.conv import add_bias_gradient
from cnn.ops.memory import empty


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    outputs, inputs = weight.shape
    y = empty((outputs, x.shape[1]), like=x)
    kernels.fill_rows(flat(x)[:0] if bias is None else flat(bias), flat(y), x.shape[1])
    if _is_narrow(x):
        add_row_products(weight, _turned(x), y)
    else:
        kernels.add_product(rows_of_blocks(outputs))(flat(weight), inputs, 1, flat(x), inputs, flat(y), x.shape[1])
    return y


def linear_backward_input(dy: Tensor, weight: Tensor) -> Tensor:
    (outputs, inputs), batch = weight.shape, dy.shape[1]
    shape = (batch, inputs) if _is_narrow(dy) else (inputs, batch)
    dx = empty(shape, like=dy)
    kernels.fill_rows(flat(dy)[:0], flat(dx), shape[1])
    if _is_narrow(dy):  # with rows of inputs, dx^T = dy^T @ weight
        kernels.add_product(rows_of_blocks(batch))(flat(dy), 1, batch, flat(weight), outputs, flat(dx), inputs)
        return _turned(dx)
    kernels.add_product(rows_of_blocks(inputs))(flat(weight), 1, inputs, flat(dy), outputs, flat(dx), batch)
    return dx


def add_linear_backward_weight(x: Tensor, dy: Tensor, dweight: Tensor, dbias: Tensor | None) -> None:
    (outputs, inputs), batch = dweight.shape, x.shape[1]
    product = kernels.add_product(rows_of_blocks(outputs))
    product(flat(dy), batch, 1, flat(_turned(x)), batch, flat(dweight), inputs)
    if dbias is not None:
        add_bias_gradient(flat(dy), batch, flat(dbias))


def _is_narrow(x: Tensor) -> bool:
    """Whether the examples don't fill a vector."""
    return x.shape[1] * x.itemsize < VECTOR_BYTES


def _turned(x: Tensor) -> Tensor:
    """x^T in memory of its own, or as a view if its values have the same order."""
    rows, columns = x.shape
    if rows == 1 or columns == 1:
        return x.reshape(columns, rows)
    turned = empty((columns, rows), like=x)
    kernels.transpose(array(x), turned.numpy())
    return turned

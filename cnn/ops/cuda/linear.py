"""Matrix products of weights and features in Triton."""

from __future__ import annotations

from torch import Tensor

from cnn.ops.cuda.conv import add_weight_products
from cnn.ops.cuda.geometry import NO_WINDOW
from cnn.ops.cuda.kernels.product import product
from cnn.ops.cuda.kernels.sums import add_partial_products
from cnn.ops.cuda.launching import ACCUMULATORS, blocks, launch, power_of_2, products_in
from cnn.ops.cuda.tiles import Shape, weight_tiles
from cnn.ops.memory import empty

PROGRAMS = 264
"""As many programs as a product is split into, if it has that many blocks of inputs."""

FEW_BLOCKS = 8
"""Blocks of inputs that aren't worth a split: the sum of its parts takes a launch of its own."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _product(weight, weight.stride(), x, bias, len(weight))


def linear_backward_input(dy: Tensor, weight: Tensor) -> Tensor:
    return _product(weight, weight.stride()[::-1], dy, None, weight.shape[1])


def _product(weight: Tensor, strides: tuple[int, ...], x: Tensor, bias: Tensor | None, outputs: int) -> Tensor:
    """The sum over i of weight[o * strides[0] + i * strides[1]] * x[i, n], plus bias[o]."""
    inputs, batch = x.shape
    exact = products_in(x.dtype) == "ieee"
    most_o, most_n = (16, 32) if exact else (32, 64)
    block_o, block_n = power_of_2(outputs, least=16, most=most_o), power_of_2(batch, least=16, most=most_n)
    block_i = power_of_2(inputs, least=16, most=32)
    grid, steps = (blocks(outputs, block_o), blocks(batch, block_n)), blocks(inputs, block_i)
    splits = min(blocks(steps, FEW_BLOCKS), max(1, PROGRAMS // max(1, grid[0] * grid[1])))
    split_steps = blocks(steps, splits)
    splits = blocks(steps, split_steps)
    y = empty((outputs, batch), like=x)
    to = y if splits == 1 else empty((splits, outputs, batch), like=x)
    has_bias = bias is not None
    given = weight, x.contiguous(), weight if bias is None else bias, to, batch, *strides, split_steps
    constant = outputs, inputs, has_bias and splits == 1, products_in(x.dtype), ACCUMULATORS[x.dtype]
    options = {"num_warps": 4, "num_stages": 2 if exact else 3}
    launch(product, (*grid, splits), *given, *constant, block_o, block_i, block_n, **options)
    if splits > 1:
        at_once = power_of_2(splits, most=64)
        sums = to, weight if bias is None else bias, y, splits, outputs, batch, has_bias, at_once, 64
        launch(add_partial_products, (blocks(outputs * batch, 64),), *sums)
    return y


def add_linear_backward_weight(x: Tensor, dy: Tensor, dweight: Tensor, dbias: Tensor | None) -> None:
    outputs, inputs = dweight.shape
    shape = Shape(outputs, inputs, (), (), (), x.shape[-1], products_in(x.dtype))
    add_weight_products(x, dy, dweight, dbias, (outputs, inputs, *NO_WINDOW, 1), weight_tiles(shape))

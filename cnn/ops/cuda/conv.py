"""Convolution in Triton; docs/convolution.md derives that the input's gradient is a gather as well."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from cnn.ops.cuda.geometry import Phases, constants, phase_table, phases_of, volume
from cnn.ops.cuda.kernels import conv as kernels
from cnn.ops.cuda.kernels.sums import add_partial_gradients
from cnn.ops.cuda.launching import ACCUMULATORS, blocks, launch, power_of_2, products_in
from cnn.ops.cuda.tiles import Shape, WeightTiles, gather_tiles, weight_tiles
from cnn.ops.memory import empty
from cnn.ops.window import Sizes, Window

ONES = (1, 1, 1)
TURNED = 32
"""The side of the tiles in which weights are turned."""


class Moves(NamedTuple):
    """How `kernels.conv.gather` moves over its input and output: PLACE, TAP, OUT, STEP, KERNEL and BASE there."""

    place: Sizes
    tap: Sizes
    out: Sizes
    step: Sizes
    kernel: Sizes
    base: Sizes | None


class Filters(NamedTuple):
    """Weights as `gather` reads them: o * strides[0] + c * strides[1] + group * strides[2] + tap * strides[3]."""

    weight: Tensor
    outputs: int
    channels: int
    strides: tuple[int, int, int, int]


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
    size = tuple(x.shape[1:-1])
    y = empty((weight.shape[0], *window.output_size(size), x.shape[-1]), like=x)
    kernel, stride, dilation, before = window.on_three_axes()
    moves = Moves(stride, dilation, ONES, ONES, kernel, tuple(-pad for pad in before))
    outputs, channels, taps = weight.shape[0] // groups, weight.shape[1], window.tap_count
    strides = channels * taps, taps, weight.numel() // groups, 1
    filters = Filters(weight.contiguous(), outputs, channels, strides)
    shape = Shape(outputs, channels, window.kernel, window.stride, size, x.shape[-1], products_in(x.dtype))
    _gather(x.contiguous(), filters, bias, y, moves, None, shape)
    return y


def conv_backward_input(dy: Tensor, weight: Tensor, size: Sizes, window: Window, groups: int) -> Tensor:
    dx = empty((groups * weight.shape[1], *size, dy.shape[-1]), like=dy)
    phases = phases_of(window, size)
    kernel, stride, _, before = window.on_three_axes()
    moves = Moves(ONES, phases.shift, stride, phases.step, kernel, before if set(stride) == {1} else None)
    outputs, channels, taps = weight.shape[0] // groups, weight.shape[1], window.tap_count
    strides = taps, channels * taps, weight.numel() // groups, 1
    filters = Filters(weight.contiguous(), channels, outputs, strides)
    shape = Shape(outputs, channels, window.kernel, window.stride, size, dy.shape[-1], products_in(dy.dtype))
    table = None if moves.base else phase_table(window, size, dy.device)
    _gather(dy.contiguous(), filters, None, dx, moves, phases, shape, table)
    return dx


def _gather(
    x: Tensor,
    filters: Filters,
    bias: Tensor | None,
    y: Tensor,
    moves: Moves,
    phases: Phases | None,
    shape: Shape,
    table: Tensor | None = None,
) -> None:
    tiles = gather_tiles(shape, backward=phases is not None)
    groups = len(y) // filters.outputs
    if tiles.turned and groups == 1:
        filters = _turned(filters, shape)
    weight, outputs, channels, strides = filters
    batch, depth, height, width = x.shape[-1], *volume(y)
    if phases is None:
        patches, count = depth * blocks(height, tiles.height) * blocks(width, tiles.width), 1
    else:
        patches, count = phases.patches(tiles.height, tiles.width), len(phases.table)
    grid = patches * blocks(batch, tiles.examples), blocks(outputs, tiles.outputs), count * groups
    tensors = x, weight, weight if bias is None else bias, y, weight if table is None else table
    constant = outputs, channels, volume(x), volume(y), *moves, groups, bias is not None, tiles.mode, shape.products
    sizes = tiles.outputs, tiles.channels, tiles.height, tiles.width, tiles.examples
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    launch(kernels.gather, grid, *tensors, batch, *strides, *constant, ACCUMULATORS[x.dtype], *sizes, **options)


def _turned(filters: Filters, shape: Shape) -> Filters:
    """The same weights as [taps, outputs, channels]."""
    weight, outputs, channels, strides = filters
    turned = empty((weight.numel(),), like=weight)
    grid = math.prod(shape.kernel), blocks(outputs, TURNED), blocks(channels, TURNED)
    launch(kernels.turn_weights, grid, weight, turned, *strides[:2], outputs, channels, TURNED, TURNED)
    return Filters(turned, outputs, channels, (channels, 1, 0, outputs * channels))


def add_conv_backward_weight(
    x: Tensor, dy: Tensor, window: Window, dweight: Tensor, groups: int, dbias: Tensor | None
) -> None:
    size = tuple(x.shape[1:-1])
    outputs, channels = dweight.shape[0] // groups, dweight.shape[1]
    shape = Shape(outputs, channels, window.kernel, window.stride, size, x.shape[-1], products_in(x.dtype))
    geometry = constants(window, size, window.output_size(size))
    add_weight_products(x, dy, dweight, dbias, (outputs, channels, *geometry, groups), weight_tiles(shape))


def add_weight_products(
    x: Tensor, dy: Tensor, dweight: Tensor, dbias: Tensor | None, constant: tuple[Any, ...], tiles: WeightTiles
) -> None:
    """Add the products of dy and x to dweight, and dy to dbias. `constant`: O, C, ..., GROUPS of the kernel."""
    (outputs, channels, *_, kernel, groups), batch = constant, x.shape[-1]
    columns, positions = channels * math.prod(kernel), math.prod(dy.shape[1:-1])
    grid = blocks(outputs, tiles.outputs), blocks(columns, tiles.columns)
    steps = positions * blocks(batch, tiles.examples)
    split_steps = max(1, blocks(steps, max(1, tiles.programs // (grid[0] * grid[1] * groups))))
    splits = max(1, blocks(steps, split_steps))
    biases = 0 if dbias is None else dbias.numel()
    partial = empty((splits * (dweight.numel() + biases),), like=dweight)
    given = x.contiguous(), dy.contiguous(), partial, batch, split_steps, splits
    arithmetic = biases > 0, products_in(x.dtype), ACCUMULATORS[x.dtype]
    sizes = tiles.outputs, tiles.columns, tiles.examples
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    launch(kernels.weight_products, (*grid, splits * groups), *given, *constant, *arithmetic, *sizes, **options)
    count, at_once = dweight.numel(), power_of_2(splits, most=tiles.splits_at_once)
    sums = partial, dweight, dweight if dbias is None else dbias, splits, count, biases, at_once, tiles.sums
    launch(add_partial_gradients, (blocks(count, tiles.sums) + blocks(biases, tiles.sums),), *sums)

"""How kernels of convolutions are cut into tiles: from a table of measured shapes, or else by rules made from it.

Nothing is measured while a program runs: tiles determine the order of sums, and so the bits of a result.
`python -m benchmarks.gpu_tiles` measures on a GPU and writes the table.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from cnn.ops.cuda.launching import power_of_2
from cnn.ops.cuda.tiles_table import GATHERS, WEIGHTS
from cnn.ops.window import Sizes

Mode = Literal["dot", "merged", "outer"]

FEW_CHANNELS = 8
"""With fewer, channels and taps are one axis: a tap of its own would leave most of a matrix empty."""

MEASURED = 128, 512, 2048
"""The numbers of examples in the table."""

COLUMNS = 128
"""Outputs of a channel in one tile: of this many examples, or of some places for fewer."""

VECTOR = 16
"""A number of examples that is a multiple of this lets Triton load several values at once."""

MOST_EXACT = 32
"""As many of products that no matrix unit does at once, in float64 above all: they have to fit in registers."""


@dataclass(frozen=True)
class GatherTiles:
    """The tiles of `kernels.conv.gather`, and whether weights are turned first."""

    mode: Mode
    outputs: int
    channels: int
    height: int
    width: int
    examples: int
    warps: int
    stages: int
    turned: bool = False


@dataclass(frozen=True)
class WeightTiles:
    """The tiles of `kernels.conv.weight_products`, and of `kernels.sums.add_partial_gradients` after it.

    `programs`: how many there are at least, if positions and examples suffice.
    """

    outputs: int
    columns: int
    examples: int
    programs: int
    splits_at_once: int
    sums: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Shape:
    """What tiles depend on: of a convolution outputs and channels of a group, kernel, stride, input size and examples.

    `products`: how it multiplies, as `launching.products_in` says.
    """

    outputs: int
    channels: int
    kernel: Sizes
    stride: Sizes
    size: Sizes
    examples: int
    products: str


@functools.lru_cache(maxsize=4096)
def gather_tiles(shape: Shape, *, backward: bool) -> GatherTiles:
    """The tiles of a convolution's output, or of the gradient of its input."""
    row = _nearest(GATHERS, ("input" if backward else "forward",), shape)
    if row:
        return GatherTiles(*row)
    most = MOST_EXACT if shape.products == "ieee" else COLUMNS
    examples = power_of_2(shape.examples, least=16, most=most)
    width = min(most // examples, power_of_2(shape.size[-1]) if shape.size else 1)
    outputs, channels = (shape.channels, shape.outputs) if backward else (shape.outputs, shape.channels)
    if shape.products == "ieee":
        return GatherTiles("dot", 16, 16, 1, width, examples, 4, 2)
    if channels < FEW_CHANNELS and not backward:
        if outputs <= 10 and shape.products == "tf32x3":
            return GatherTiles("outer", 16, 16, 1, max(width, 2), examples, 4, 2)
        return GatherTiles("merged", 16, 16, 1, width, examples, 4, 2)
    block = power_of_2(outputs, least=16, most=32)
    wide = block == 32 and (shape.products == "tf32x3" or outputs > 32)
    turned = channels >= 16 and (not backward or shape.examples >= 512)
    depth = power_of_2(channels, least=16, most=32)
    return GatherTiles("dot", block, depth, 1, width, examples, 4 if wide else 2, 3, turned)


@functools.lru_cache(maxsize=4096)
def weight_tiles(shape: Shape) -> WeightTiles:
    """The tiles of the gradient of a convolution's weight."""
    row = _nearest(WEIGHTS, (), shape)
    tiles = WeightTiles(*row) if row else _weight_tiles(shape)
    if shape.examples % VECTOR:  # values are loaded one by one, and their addresses take registers
        return replace(tiles, examples=min(tiles.examples, 32), warps=max(tiles.warps, 4), stages=2)
    return tiles


def _weight_tiles(shape: Shape) -> WeightTiles:
    exact = shape.products == "ieee"
    outputs = power_of_2(shape.outputs, least=16, most=64)
    examples = power_of_2(shape.examples, least=16, most=MOST_EXACT if exact else 64)
    if exact:
        return WeightTiles(min(outputs, 32), 32, examples, 528, 64, 16, 4, 2)
    if shape.channels == 1:
        return WeightTiles(outputs, 16, examples, 528, 256, 16, 1 if outputs < 32 else 2, 3)
    if outputs < 64:
        few = shape.outputs <= 10
        return WeightTiles(outputs, 32, min(examples, 32) if few else examples, 528, 256, 16, 2, 3)
    wide = examples if shape.examples >= 2048 else min(examples, 32)
    return WeightTiles(64, 64, wide, 264, 64, 32, 4, 3)


def _nearest(table: Mapping[Any, tuple[Any, ...]], kind: tuple[str, ...], shape: Shape) -> tuple[Any, ...] | None:
    """The row of a shape with the nearest number of examples, if the shape was measured."""
    precision = "tf32" if shape.products == "bf16" else shape.products
    key = precision, *kind, shape.outputs, shape.channels, shape.kernel, shape.stride, shape.size
    counts = [count for count in MEASURED if (*key, count) in table]
    return table[(*key, min(counts, key=lambda count: abs(count - shape.examples)))] if counts else None

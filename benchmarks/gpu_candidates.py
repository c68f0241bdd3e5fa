"""What `benchmarks.gpu_tiles` tries: the convolutions of the models, and tiles that may suit them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu_sides import GpuCase
from cnn import Mode, ops
from cnn.graphs.fusion import fuse
from cnn.losses import CrossEntropy
from cnn.ops import Window
from cnn.ops.cuda import conv
from cnn.ops.cuda.launching import launched_by, power_of_2
from cnn.ops.cuda.tiles import FEW_CHANNELS, GatherTiles, Shape, WeightTiles
from cnn.ops.window import Sizes

Tiles = GatherTiles | WeightTiles
FEW_EXAMPLES = 16
"""Of the step that finds the convolutions, none of whose values is computed."""

KINDS = ("forward", "input", "weight")


@dataclass(frozen=True)
class Point:
    """A convolution of one of the models, and which of its three products is meant."""

    kind: str
    outputs: int
    channels: int
    window: Window
    size: Sizes
    has_bias: bool

    def shape(self, examples: int, products: str) -> Shape:
        window = self.window
        return Shape(self.outputs, self.channels, window.kernel, window.stride, self.size, examples, products)

    def key(self, examples: int, products: str) -> tuple[Any, ...]:
        """Where the tiles of this point are in the table."""
        shape = self.shape(examples, products)
        numbers = shape.outputs, shape.channels, shape.kernel, shape.stride, shape.size, examples
        return (products, *numbers) if self.kind == "weight" else (products, self.kind, *numbers)

    def flops(self, examples: int) -> int:
        places = 1
        for each in self.window.output_size(self.size):
            places *= each
        return 2 * self.outputs * self.channels * self.window.tap_count * places * examples

    def call(self, examples: int, device: str) -> Callable[[], Tensor]:
        """Computes the product of random values; the sum of a weight's gradient starts at 0 each time."""
        generator = torch.Generator().manual_seed(1)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        window, size = self.window, self.size
        x, dy = (self.channels, *size, examples), (self.outputs, *window.output_size(size), examples)
        weight = random(self.outputs, self.channels, *window.kernel)
        bias = random(self.outputs) if self.has_bias else None
        if self.kind == "forward":
            given = random(*x)
            return lambda: conv.conv(given, weight, bias, window, 1)
        if self.kind == "input":
            given = random(*dy)
            return lambda: conv.conv_backward_input(given, weight, size, window, 1)
        given, gradient = random(*x), random(*dy)
        dbias = None if bias is None else torch.zeros_like(bias)

        def add() -> Tensor:
            dweight = torch.zeros_like(weight)
            conv.add_conv_backward_weight(given, gradient, window, dweight, 1, dbias)
            return dweight

        return add


@contextmanager
def forced(tiles: Tiles) -> Iterator[None]:
    """Use these tiles, whatever the table and the rules say."""

    def gather_tiles(shape: Shape, *, backward: bool) -> Tiles:
        return tiles

    def weight_tiles(shape: Shape) -> Tiles:
        return tiles

    with mock.patch.object(conv, "gather_tiles", gather_tiles), mock.patch.object(conv, "weight_tiles", weight_tiles):
        yield


def points_of(models: Sequence[str]) -> list[Point]:
    """The products of the models' convolutions, each once: what a step calls, without computing anything."""
    found: dict[Point, None] = {}

    def note(kind: str, weight: Tensor, window: Window, size: Sizes, has_bias: bool) -> None:
        found[Point(kind, weight.shape[0], weight.shape[1], window, size, has_bias)] = None

    def noted_conv(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
        note("forward", weight, window, tuple(x.shape[1:-1]), bias is not None)
        return conv.conv(x, weight, bias, window, groups)

    def noted_input(dy: Tensor, weight: Tensor, size: Sizes, window: Window, groups: int) -> Tensor:
        note("input", weight, window, size, False)
        return conv.conv_backward_input(dy, weight, size, window, groups)

    def noted_weight(x: Tensor, dy: Tensor, window: Window, dweight: Tensor, groups: int, dbias: Tensor | None) -> None:
        note("weight", dweight, window, tuple(x.shape[1:-1]), dbias is not None)

    noted: dict[str, Any] = {
        "conv": noted_conv,
        "conv_backward_input": noted_input,
        "add_conv_backward_weight": noted_weight,
    }
    backend = ops.Backend("noted", lambda device, dtype: True, noted, priority=99)
    ops.load_backends("cpu")
    ops.register(backend)
    try:
        with launched_by(lambda *arguments, **options: None):
            for model in models:
                case = GpuCase(model, FEW_EXAMPLES)
                network, batch, loss = case.network(), case.draw(), CrossEntropy()
                y, cache = (scored := fuse(network)).forward(batch.x, Mode(train=True))
                _, kept = loss.forward(torch.zeros_like(y), batch.targets)
                scored.backward(loss.backward(kept), cache, need_dx=False)
    finally:
        ops.remove(backend)
    by_key = {point.key(1, ""): point for point in reversed(found)}  # padding isn't part of a key
    return sorted(
        by_key.values(), key=lambda point: (KINDS.index(point.kind), point.outputs, point.channels, point.size)
    )


def candidates(point: Point, products: str) -> list[Tiles]:
    """Tiles to try, without those in use. None is of more examples than the smallest batch in the table."""
    if point.kind == "weight":
        return [*weight_candidates(point)]
    outputs, channels = point.outputs, point.channels
    if point.kind == "input":
        outputs, channels = channels, outputs
    elif channels < FEW_CHANNELS:
        return [*few_channels(outputs, products)]
    return [*gather_candidates(outputs, channels, point, products)]


def few_channels(outputs: int, products: str) -> list[GatherTiles]:
    """Tiles for channels and taps as one axis, and for outer products."""
    block = power_of_2(outputs, least=16, most=32)
    tried = [
        GatherTiles("merged", block, 16, 1, width, examples, warps, 1)
        for width, examples in ((1, 64), (1, 128), (2, 64), (2, 128))
        for warps in (2, 4)
    ]
    if products == "tf32x3" and outputs <= 16:  # more don't fit in registers
        outer = ((1, 1, 64, 2), (1, 1, 128, 4), (1, 2, 128, 4), (1, 2, 64, 2))
        tried += [GatherTiles("outer", block, 16, *patch, 1) for patch in outer]
    return tried


def gather_candidates(outputs: int, channels: int, point: Point, products: str) -> list[GatherTiles]:
    """Tiles for a product tap by tap, with the weights as they are and turned."""
    block, depth = power_of_2(outputs, least=16, most=32), power_of_2(channels, least=16, most=32)
    patches = (
        *((1, 1, 64, 2, 3), (1, 1, 64, 4, 3), (1, 1, 128, 2, 3), (1, 1, 128, 4, 3), (1, 2, 64, 2, 3)),
        *((1, 2, 64, 4, 3), (1, 2, 128, 4, 3), (1, 2, 128, 8, 3), (1, 1, 128, 2, 4), (1, 1, 128, 4, 2)),
    )
    tried = [GatherTiles("dot", block, depth, *patch) for patch in patches]
    if depth > 16:
        tried.append(GatherTiles("dot", block, 16, 1, 1, 128, 4, 3))
    if outputs > 32 and products == "tf32":  # with three products, two blocks of 32 are faster
        tried += [GatherTiles("dot", 64, depth, 1, 1, 128, 4, 3), GatherTiles("dot", 64, depth, 1, 1, 64, 4, 3)]
    if point.window.tap_count > 1:
        tried += [replace(tiles, turned=True) for tiles in tried]
    return tried


def weight_candidates(point: Point) -> Iterator[WeightTiles]:
    block, columns = power_of_2(point.outputs, least=16, most=64), point.channels * point.window.tap_count
    if columns <= 16:
        sizes = [(16, 32, 1, 3), (16, 64, 1, 3), (16, 32, 2, 4), (16, 64, 2, 3), (16, 128, 1, 2)]
    elif columns <= 32:
        sizes = [(32, 32, 2, 3), (32, 64, 2, 3), (16, 32, 2, 3), (16, 64, 4, 3), (32, 64, 4, 3)]
    else:
        sizes = [(32, 32, 1, 3), (32, 32, 2, 3), (32, 64, 2, 3), (64, 32, 2, 3), (64, 32, 4, 3), (64, 64, 4, 3)]
        sizes += [(128, 32, 4, 3), (32, 32, 2, 4)]
    for width, examples, warps, stages in sizes:
        for programs in (264, 528, 1056):
            yield WeightTiles(block, width, examples, programs, 256, 16, warps, stages)


def more_sums(best: WeightTiles) -> list[WeightTiles]:
    """The best tiles, with other numbers of programs and other sums of their parts: these compile in no time."""
    sums = ((64, 16), (128, 16), (64, 32), (128, 8))
    return [replace(best, programs=2112), *(replace(best, splits_at_once=at, sums=size) for at, size in sums)]

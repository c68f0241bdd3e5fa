"""The geometry of convolutions and pools: a window that moves over the spatial axes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """A window's geometry, one number per spatial axis.

    Along an axis, tap k at position p reads the input at p * stride + k * dilation - before. Places outside the input
    are padding: `before` places before it and `after` after it. A negative `after` skips the last places of the input,
    which is what the output padding of a transposed convolution amounts to.
    """

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    before: Sizes
    after: Sizes

    @property
    def span(self) -> Sizes:
        """The number of input places from the first tap to the last, inclusive."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def is_pointwise(self) -> bool:
        """Whether every position reads exactly one input value, its own."""
        return not any(self.before) and not any(self.after) and {*self.kernel, *self.stride} <= {1}

    def padded(self, size: Sizes) -> Sizes:
        """The size of the padded input."""
        return tuple(s + b + a for s, b, a in zip(size, self.before, self.after, strict=True))

    def output_size(self, size: Sizes) -> Sizes:
        """The number of positions along each axis, (padded size - span) // stride + 1; below 1 if none fits."""
        padded = self.padded(size)
        return tuple((s - w) // step + 1 for s, w, step in zip(padded, self.span, self.stride, strict=True))

    def rounded_up(self, size: Sizes) -> Window:
        """The window with more padding at the end, so that strides leave no remainder of inputs of this size.

        A position has to start on the input or in the padding before it, as with PyTorch's `ceil_mode`.
        """
        after = []
        for s, padded, w, step, b, a in zip(
            size, self.padded(size), self.span, self.stride, self.before, self.after, strict=True
        ):
            more = -(padded - w) % step
            starts_inside = (padded - w + more) < s + b
            after.append(a + more if starts_inside else a)
        return replace(self, after=tuple(after))

    def always_covers(self, size: Sizes) -> bool:
        """Whether every position reads at least one value of inputs of this size, not only padding."""
        for s, count, k, step, d, b in zip(
            size, self.output_size(size), self.kernel, self.stride, self.dilation, self.before, strict=True
        ):
            if (count - 1) * step - b >= s:  # the last position starts beyond the input
                return False
            for position in range(min(count, -(-b // step), d)):  # before the input; d of them represent all
                tap = -(-(b - position * step) // d)  # the first one that isn't before it
                if tap >= k or position * step + tap * d - b >= s:
                    return False
        return True

    def taps(self) -> Iterator[Sizes]:
        """The taps of the kernel, in row-major order."""
        return product(*(range(kernel) for kernel in self.kernel))

    @property
    def tap_count(self) -> int:
        return math.prod(self.kernel)

    def reach(self, tap: Sizes, output_size: Sizes) -> tuple[slice, ...]:
        """The places of the padded input that this tap reads, one slice per spatial axis."""
        return tuple(
            slice(k * dilation, k * dilation + stride * (count - 1) + 1, stride)
            for k, dilation, stride, count in zip(tap, self.dilation, self.stride, output_size, strict=True)
        )

    def on_three_axes(self) -> tuple[Sizes, Sizes, Sizes, Sizes]:
        """Kernel, stride, dilation and padding with leading axes of size one: kernels are compiled for three axes."""
        missing = 3 - len(self.kernel)
        ones, zeros = (1,) * missing, (0,) * missing
        return ones + self.kernel, ones + self.stride, ones + self.dilation, zeros + self.before


def winner_dtype(window: Window) -> torch.dtype:
    """The smallest dtype for the numbers of a window's taps, and one more that means none of them."""
    return torch.uint8 if window.tap_count < 256 else torch.int32

"""The geometry that convolutions and pools share: a window that moves over the spatial axes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

Sizes = tuple[int, ...]


class Window(NamedTuple):
    """Kernel size, stride and zero padding, each one number per spatial axis."""

    kernel: Sizes
    stride: Sizes
    padding: Sizes

    def output_size(self, size: Sizes) -> Sizes:
        """How many positions fit along each axis: (size + 2 padding - kernel) // stride + 1, below 1 if none."""
        return tuple(
            (extent + 2 * padding - kernel) // stride + 1
            for extent, kernel, stride, padding in zip(size, *self, strict=True)
        )

    def taps(self) -> Iterator[Sizes]:
        """The positions inside the kernel, in row-major order."""
        return product(*(range(kernel) for kernel in self.kernel))

    def reach(self, tap: Sizes, output_size: Sizes) -> tuple[slice, ...]:
        """Where, on the padded input, this tap meets each output position: one slice per spatial axis."""
        return tuple(
            slice(offset, offset + stride * (count - 1) + 1, stride)
            for offset, stride, count in zip(tap, self.stride, output_size, strict=True)
        )

    def on_three_axes(self) -> Window:
        """The same window with leading axes of size one, for kernels that are compiled for three spatial axes."""
        missing = 3 - len(self.kernel)
        return Window((1,) * missing + self.kernel, (1,) * missing + self.stride, (0,) * missing + self.padding)

"""Windows and tensors that operations are tried on."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from cnn.ops import Running, Window


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, tuple[int, ...]]:
    axes = draw(st.integers(1, 3))
    per_axis = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * axes))  # noqa: E731
    window = Window(per_axis(1, 3), per_axis(1, 3), per_axis(1, 2), per_axis(0, 3), per_axis(-1, 3))
    size = tuple(
        draw(st.integers(max(1, span - before - after), 7))
        for span, before, after in zip(window.span, window.before, window.after, strict=True)
    )
    return window, size


def square(kernel: int, stride: int) -> Window:
    """A window over two axes, without padding."""
    return Window((kernel,) * 2, (stride,) * 2, (1, 1), (0, 0), (0, 0))


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def running(like: Tensor) -> Running:
    """Statistics to begin with, as many as this vector has values."""
    return Running(torch.zeros_like(like), torch.ones_like(like), momentum=0.1, eps=1e-5)

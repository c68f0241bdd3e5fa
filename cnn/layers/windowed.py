"""What layers with a moving window share: arguments for each axis, and the check of the input's shape."""

from __future__ import annotations

from collections.abc import Sequence

from cnn.arguments import ConfigError, Fault
from cnn.layer import Shape, ShapeError
from cnn.ops import Window


def make_window(
    axes: int, kernel_size: int | Sequence[int], stride: int | Sequence[int], padding: int | Sequence[int]
) -> Window:
    """A window over `axes` spatial axes; one number stands for every axis. Raises ConfigError for a wrong count."""
    given = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    faults = [
        Fault(name, f"{list(value)} names {len(value)} axes, give one number or {axes}")
        for name, value in given.items()
        if isinstance(value, Sequence) and len(value) != axes
    ]
    if faults:
        raise ConfigError(faults)
    return Window(*(tuple(value) if isinstance(value, Sequence) else (value,) * axes for value in given.values()))


def slide(window: Window, input_shape: Shape) -> Shape:
    """The spatial size of the output. Raises ShapeError for other axes, and for a kernel larger than the input."""
    axes = len(window.kernel)
    if len(input_shape) != axes + 1:
        wanted = ["channels", "depth", "height", "width"]
        del wanted[1 : 4 - axes]
        raise ShapeError(f"takes [{', '.join(wanted)}], got input {list(input_shape)}")
    size = window.output_size(input_shape[1:])
    if min(size) < 1:
        padded = f" padded by {_times(window.padding)}" if any(window.padding) else ""
        raise ShapeError(
            f"kernel {_times(window.kernel)} is larger than the input {list(input_shape)}{padded}: "
            "use a smaller kernel_size, more padding, or fewer strides and pools before it"
        )
    return size


def _times(sizes: Shape) -> str:
    return "x".join(map(str, sizes))

"""Common code of layers with a moving window: arguments per axis, and checks of the input's shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cnn.faults import ConfigError, Fault
from cnn.layer import Shape, ShapeError, check_size
from cnn.ops import Window

PerAxis = int | Sequence[int]
AXES = {1: ["length"], 2: ["height", "width"], 3: ["depth", "height", "width"]}


def make_window(
    axes: int,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis | Literal["same", "valid"] = 0,
    dilation: PerAxis = 1,
) -> Window:
    """A window over `axes` spatial axes. One number applies to every axis; the stride defaults to the kernel's size.

    `padding: same` preserves the input's size; if that takes an odd number of places, the extra one is at the end, as
    in PyTorch. `valid` is no padding. Raises ConfigError for a wrong number of values, and for `same` with strides.
    """
    given: dict[str, PerAxis] = {"kernel_size": kernel_size, "dilation": dilation}
    if stride is not None:
        given["stride"] = stride
    if padding != "same":
        given["padding"] = 0 if padding == "valid" else padding
    sizes = per_axis(axes, **given)
    kernel, dilations = sizes["kernel_size"], sizes["dilation"]
    steps = sizes.get("stride", kernel)
    if padding == "same":
        if {*steps} != {1}:
            raise ConfigError([Fault("padding", f"same needs stride 1, got {show_sizes(steps)}: give numbers")])
        total = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        before = tuple(t // 2 for t in total)
        return Window(kernel, steps, dilations, before, tuple(t - b for t, b in zip(total, before, strict=True)))
    return Window(kernel, steps, dilations, sizes["padding"], sizes["padding"])


def per_axis(axes: int, **given: PerAxis) -> dict[str, Shape]:
    """Each argument as one number per axis. Raises ConfigError with every argument of another length."""
    faults = [
        Fault(name, f"{list(value)} has {len(value)} numbers, give one{f' or {axes}' if axes > 1 else ''}")
        for name, value in given.items()
        if isinstance(value, Sequence) and len(value) != axes
    ]
    if faults:
        raise ConfigError(faults)
    return {name: tuple(value) if isinstance(value, Sequence) else (value,) * axes for name, value in given.items()}


def slide(window: Window, input_shape: Shape) -> Shape:
    """The spatial size of the output. Raises ShapeError for other axes, or if the kernel is larger than the input."""
    check_axes(len(window.kernel), input_shape)
    size = window.output_size(input_shape[1:])
    if min(size) < 1:
        dilated = f" dilated to {show_sizes(window.span)}" if window.span != window.kernel else ""
        padded = f" padded to {show_sizes(window.padded(input_shape[1:]))}" if any(window.before + window.after) else ""
        raise ShapeError(
            f"kernel {show_sizes(window.kernel)}{dilated} is larger than the input {list(input_shape)}{padded}: "
            "use a smaller kernel_size, more padding, or fewer strides and pools before it"
        )
    check_size((input_shape[0], *window.padded(input_shape[1:])), "pads its input to")
    return size


def check_axes(axes: int, input_shape: Shape) -> None:
    """Raise ShapeError unless the input has channels and this number of spatial axes."""
    if len(input_shape) != axes + 1:
        raise ShapeError(f"takes [channels, {', '.join(AXES[axes])}], got input {list(input_shape)}")


def show_sizes(sizes: Shape) -> str:
    return "x".join(map(str, sizes))

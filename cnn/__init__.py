"""Convolutional networks from scratch: layers with hand-written forward and backward passes, on torch tensors.

The names are imported when the first of them is used: a program that only wants `cnn.text` or `cnn.faults` starts
without torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnn.public import (
        Buffer,
        Cache,
        Concat,
        ConfigError,
        Graph,
        Layer,
        Mode,
        Parameter,
        Repeat,
        Residual,
        Sequential,
        ShapeError,
        build_model,
        plan_model,
    )

__all__ = [
    "Buffer",
    "Cache",
    "Concat",
    "ConfigError",
    "Graph",
    "Layer",
    "Mode",
    "Parameter",
    "Repeat",
    "Residual",
    "Sequential",
    "ShapeError",
    "build_model",
    "plan_model",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cnn import public

    found: object = getattr(public, name)
    return found

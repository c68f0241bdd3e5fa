"""Convolutional networks from scratch: layers with hand-written forward and backward passes, on torch tensors.

A name is imported when it is first used: a program that only wants `cnn.text` or `cnn.faults` doesn't load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnn.builder import build_model, plan_model
    from cnn.faults import ConfigError
    from cnn.graphs.concat import Concat
    from cnn.graphs.graph import Graph
    from cnn.graphs.residual import Residual
    from cnn.graphs.sequential import Repeat, Sequential
    from cnn.layer import Buffer, Cache, Layer, Mode, Parameter, ShapeError

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

_MODULES = {
    **dict.fromkeys(("build_model", "plan_model"), "cnn.builder"),
    **dict.fromkeys(("Buffer", "Cache", "Layer", "Mode", "Parameter", "ShapeError"), "cnn.layer"),
    **dict.fromkeys(("Repeat", "Sequential"), "cnn.graphs.sequential"),
    "Concat": "cnn.graphs.concat",
    "ConfigError": "cnn.faults",
    "Graph": "cnn.graphs.graph",
    "Residual": "cnn.graphs.residual",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

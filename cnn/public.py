"""What `cnn` gives to programs, imported all together."""

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

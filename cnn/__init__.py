"""Convolutional networks from scratch: layers with hand-written forward and backward passes, on torch tensors."""

from cnn.arguments import ConfigError
from cnn.branches import Concat, Residual
from cnn.builder import build_model, plan_model
from cnn.graph import Graph, Repeat, Sequential
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

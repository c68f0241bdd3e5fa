"""Convolutional networks from scratch: layers with hand-written forward and backward passes, on torch tensors."""

from cnn.arguments import ConfigError
from cnn.builder import build_model, plan_model
from cnn.graph import Graph, Sequential
from cnn.layer import Buffer, Cache, Layer, Mode, Parameter, ShapeError

__all__ = [
    "Buffer",
    "Cache",
    "ConfigError",
    "Graph",
    "Layer",
    "Mode",
    "Parameter",
    "Sequential",
    "ShapeError",
    "build_model",
    "plan_model",
]

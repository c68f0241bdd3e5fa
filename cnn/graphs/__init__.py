"""Layers made of layers, and a registry of those that configs may use."""

from cnn.graphs.concat import Concat
from cnn.graphs.graph import Graph
from cnn.graphs.residual import Residual
from cnn.graphs.sequential import Repeat, Sequential
from cnn.graphs.spectral_norm import SpectralNorm

__all__ = ["GRAPHS"]

GRAPHS: dict[str, type[Graph]] = {graph.kind: graph for graph in (Sequential, Repeat, Residual, Concat, SpectralNorm)}

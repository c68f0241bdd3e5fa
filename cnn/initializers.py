"""How parameters begin. An initializer takes a shape and a generator and returns a float64 tensor on the CPU, so that
one seed gives the same numbers whatever the device and the precision of the network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnn.layer import Shape


def kaiming_normal(shape: Shape, generator: torch.Generator) -> Tensor:
    """Draw from N(0, 2 / fan_in), which keeps the variance of activations through a ReLU.

    shape [O, I, *K], fan_in = I * prod(K). Source: He et al. 2015, "Delving Deep into Rectifiers", eq. 10.
    """
    fan_in = math.prod(shape[1:])
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(2 / fan_in)


def zeros(shape: Shape, generator: torch.Generator) -> Tensor:
    """All zeros: the start of every bias."""
    return torch.zeros(shape, dtype=torch.float64)


def ones(shape: Shape, generator: torch.Generator) -> Tensor:
    """All ones: the start of a normalisation's scale."""
    return torch.ones(shape, dtype=torch.float64)

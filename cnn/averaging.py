"""A moving average of a network's parameters."""

from __future__ import annotations

import copy

from cnn.graphs.sequential import Sequential


class MovingAverage:
    """A copy of a network whose parameters are the exponential moving average of the network's.

    After update t = 1, 2, ...:  a <- d a + (1 - d) p,   d = min(decay, (1 + t) / (10 + t)), so that the average
    soon forgets the initial weights. Buffers are copied.

    Shapes: a, p [P]. Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; for
    generators: Yazici et al. 2019, "The unusual effectiveness of averaging in GAN training".
    """

    def __init__(self, network: Sequential, decay: float) -> None:
        self.graph = copy.deepcopy(network)
        self.decay = decay
        self.updates = 0

    def update(self, network: Sequential) -> None:
        """Move the average towards the network's current parameters."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.graph.flat.data.lerp_(network.flat.data, 1 - decay)
        for (_, buffer), (_, current) in zip(self.graph.named_buffers(), network.named_buffers(), strict=True):
            buffer.data.copy_(current.data)

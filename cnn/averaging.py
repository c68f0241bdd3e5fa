"""A moving average of a network's parameters."""

from __future__ import annotations

import copy

import torch

from cnn import ops
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
        self._share = torch.ones((), dtype=self.graph.flat.data.dtype, device=self.graph.flat.data.device)

    def update(self, network: Sequential) -> None:
        """Move the average towards the network's current parameters."""
        ops.live(self._advance, None)
        buffers = [buffer.data for _, buffer in self.graph.named_buffers()]
        with ops.undone_at_a_fault(lambda: [self.graph.flat.data, *buffers]):
            self.graph.flat.data.lerp_(network.flat.data, self._share)
            for buffer, (_, current) in zip(buffers, network.named_buffers(), strict=True):
                buffer.copy_(current.data)

    def _advance(self, _: object) -> None:
        """Count an update, and compute the weight of the current parameters in it."""
        self.updates += 1
        self._share.fill_(1 - min(self.decay, (1 + self.updates) / (10 + self.updates)))

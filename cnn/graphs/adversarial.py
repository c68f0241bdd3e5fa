"""A generator followed by the discriminator that judges it. Derived in docs/generation.md."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.graphs.graph import Graph, Visit, inside, mode_of
from cnn.graphs.sequential import Sequential
from cnn.layer import Cache, Mode, Shape


class Judged(Graph):
    """The scores of what a generator makes of noise; their gradients pass through the discriminator.

    Forward:  scores = D(G(z)), or D([G(z); labels]) of a conditional pair
    Backward: dx = D's input gradient for dy, without the part for labels;  dz = G's input gradient for dx

    The discriminator's gradients are neither used nor changed: only the generator's parameters are this graph's.
    Shapes: z [L, N], G(z) [C, *S, N], labels [K, N] with a 1 at the class, scores [1, N].
    Source: Goodfellow et al. 2014, "Generative adversarial nets", algorithm 1; labels: Mirza & Osindero 2014,
    "Conditional generative adversarial nets".
    """

    kind = "judged"

    def __init__(self, generator: Sequential, discriminator: Sequential, labels: Tensor | None = None) -> None:
        super().__init__({"generator": generator})
        self.discriminator = discriminator
        self.labels = labels

    def trace(self, input_shape: Shape, visit: Visit) -> Shape:
        channels, *size = inside("generator", visit, self.layers["generator"], input_shape)
        classes = 0 if self.labels is None else len(self.labels)
        return self.discriminator.output_shape((channels + classes, *size))

    def forward(self, x: Tensor, mode: Mode) -> tuple[Tensor, Cache]:
        generator = self.layers["generator"]
        made, made_cache = generator.forward(x, mode_of(generator, mode))
        scores, cache = self.discriminator.forward(with_labels(made, self.labels), mode)
        return scores, mode.keep(made_cache, cache, len(made))

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        made_cache, cache, channels = cache.take()
        dx = self.discriminator.backward(dy, cache, need_dparams=False)
        assert dx is not None
        generator = self.layers["generator"]
        need_dparams = need_dparams and not generator.frozen
        return generator.backward(dx[:channels], made_cache, need_dx=need_dx, need_dparams=need_dparams)


def with_labels(x: Tensor, labels: Tensor | None) -> Tensor:
    """x [C, *S, N] with the labels [K, N] as further channels, each constant over S; without labels x itself."""
    if labels is None:
        return x
    count, batch = labels.shape
    planes = labels.view(count, *(1,) * (x.dim() - 2), batch)
    return torch.cat([x, planes.expand(count, *x.shape[1:-1], batch)])

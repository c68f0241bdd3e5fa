"""A variational autoencoder: encoder, reparametrised sample and decoder as one graph. Derived in docs/generation.md."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnn.graphs.graph import Graph, Visit, inside, mode_of
from cnn.graphs.sequential import Sequential
from cnn.layer import Cache, Mode, Shape, ShapeError


class Variational(Graph):
    """Encode x as a normal distribution, draw a latent vector from it, and decode that.

    With the encoder's output h = [mu; log s^2] of 2 L values and noise e ~ N(0, 1):
    Forward:  z = mu + s e,  s = exp(log s^2 / 2),  y = [decoder(z); h]
    Backward: dz from the decoder,  dmu = dz + (dy's part for mu),  d log s^2 = dz e s / 2 + (dy's part for log s^2)

    The noise is drawn from the mode's generator, in evaluation too. y has h as well, because the bound depends on both.
    Shapes: x [C, *S, N], h [2 L, N], z and e [L, N], y [D + 2 L, N] for D values of the decoder.
    Source: Kingma & Welling 2014, "Auto-encoding variational Bayes", section 2.4 and appendix C.2.
    """

    kind = "variational"

    def __init__(self, encoder: Sequential, decoder: Sequential) -> None:
        super().__init__({"encoder": encoder, "decoder": decoder})

    @property
    def latent_size(self) -> int:
        """L."""
        decoder = self.layers["decoder"]
        assert isinstance(decoder, Sequential)
        return decoder.input_shape[0]

    def trace(self, input_shape: Shape, visit: Visit) -> Shape:
        (statistics,) = inside("encoder", visit, self.layers["encoder"], input_shape)
        if statistics % 2:
            raise ShapeError(f"an encoder gives a mean and a variance for each latent value, not {statistics} values")
        decoded = inside("decoder", visit, self.layers["decoder"], (statistics // 2,))
        return (math.prod(decoded) + statistics,)

    def forward(self, x: Tensor, mode: Mode, noise: Tensor | None = None) -> tuple[Tensor, Cache]:
        """y and the cache; `noise` [L, N] is used instead of the generator's, if given."""
        encoder, decoder = self.layers["encoder"], self.layers["decoder"]
        h, encoder_cache = encoder.forward(x, mode_of(encoder, mode))
        mean, log_variance = h.chunk(2)
        if noise is None:
            noise = torch.randn(mean.shape, generator=mode.generator, dtype=h.dtype, device=h.device)
        scaled = torch.exp(log_variance / 2) * noise
        decoded, decoder_cache = decoder.forward(mean + scaled, mode_of(decoder, mode))
        y = torch.cat([decoded.flatten(0, -2), h])
        return y, mode.keep(encoder_cache, decoder_cache, scaled, decoded.shape)

    def backward(self, dy: Tensor, cache: Cache, *, need_dx: bool = True, need_dparams: bool = True) -> Tensor | None:
        encoder_cache, decoder_cache, scaled, shape = cache.take()
        size = len(dy) - 2 * len(scaled)
        decoded, dh = dy[:size], dy[size:]
        encoder, decoder = self.layers["encoder"], self.layers["decoder"]
        dz = decoder.backward(decoded.reshape(shape), decoder_cache, need_dparams=need_dparams and not decoder.frozen)
        assert dz is not None
        dh = dh + torch.cat([dz, dz * scaled / 2])
        need_dparams = need_dparams and not encoder.frozen
        return encoder.backward(dh, encoder_cache, need_dx=need_dx, need_dparams=need_dparams)

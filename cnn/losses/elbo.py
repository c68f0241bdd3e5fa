"""The evidence lower bound as a loss, and its divergence term. Derived in docs/generation.md."""

from __future__ import annotations

import torch
from torch import Tensor

from cnn.layer import Cache
from cnn.losses.standard import BCEWithLogits, Loss


class NegativeELBO(Loss):
    """The negative evidence lower bound of pictures whose pixels are 0 or 1, in nats per example.

    With the logits l of D pixels and h = [mu; log s^2], concatenated as `Variational` gives them, and targets t:
    Forward:  L = (sum over n, d of BCE(l_nd, t_nd) + beta KL_n) / N,
              KL_n = 1/2 sum over j of (mu_j^2 + s_j^2 - 1 - log s_j^2), of N(mu, s^2) from N(0, 1)
    Backward: dl = (sigmoid(l) - t) / N,  dmu = beta mu / N,  d log s^2 = beta (s^2 - 1) / (2 N)

    With beta = 1, -L is the bound with one sample of the latent vector for each example.
    Shapes: prediction [D + 2 L, N], target [D, N] in [0, 1]. Source: Kingma & Welling 2014, eq. 10 and appendix B and
    C.1; beta: Higgins et al. 2017, "beta-VAE", eq. 4.
    """

    kind = "negative_elbo"
    targets = "values"

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta
        self.pixels = BCEWithLogits()

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        prediction, count = prediction.detach(), len(target)
        mean, cache = self.pixels.forward(prediction[:count], target)
        h = prediction[count:]
        value = mean * count + self.beta * kl_divergence(h).mean()
        return value, Cache((cache, h, count))

    def backward(self, cache: Cache) -> Tensor:
        pixel_cache, h, count = cache.take()
        mean, log_variance = h.chunk(2)
        divergence = torch.cat([mean, torch.expm1(log_variance) / 2]).mul_(self.beta / h.shape[-1])
        return torch.cat([self.pixels.backward(pixel_cache).mul_(count), divergence])


def kl_divergence(h: Tensor) -> Tensor:
    """KL(N(mu, s^2) || N(0, 1)) in nats for each example [N], from h = [mu; log s^2] of shape [2 L, N]."""
    mean, log_variance = h.chunk(2)
    divergence: Tensor = (mean.square() + torch.expm1(log_variance) - log_variance).sum(0) / 2
    return divergence

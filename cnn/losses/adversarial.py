"""Losses of a discriminator, and of the generator that it judges. Derived in docs/generation.md.

A discriminator gives a score z for each example, a generator is trained on the scores of what it makes:

    forward(scores, real) -> (value, cache)      the discriminator's loss; real: 1 for data, 0 for generated examples
    of_generator(scores) -> (value, cache)       the generator's loss for scores of its examples
    backward(cache) -> dL/dscores                of either

Values are means over the scores given. A discriminator's step adds those of a batch of data and a batch of its
generator.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cnn.arguments import NonNegativeFloat, UnitInterval
from cnn.layer import Cache
from cnn.losses.standard import BCEWithLogits, Loss


class AdversarialLoss(Loss):
    """The base of losses for two networks. `penalty`: the weight of a `LipschitzPenalty` in the discriminator's loss.
    `learnt`: the values at which generator and discriminator have learnt a batch, each while the other one is fixed.
    """

    targets = "real"
    learnt: ClassVar[tuple[float, float]] = (1e-3, 1e-3)
    penalty: float = 0.0

    def of_generator(self, scores: Tensor) -> tuple[Tensor, Cache]:
        """The generator's loss for the scores of its examples."""
        raise NotImplementedError


class NonSaturating(AdversarialLoss):
    """The classical loss: the discriminator tells data from generated examples, the generator wants to be taken for
    data.

    With D = sigmoid(z), label smoothing s (of data only):
    Forward:  discriminator  -mean of [(1 - s) log D + s log(1 - D)] for data,  -mean of log(1 - D) for generated ones,
              generator      -mean of log D
    Backward: dz = (D - t) / M for M scores,  t = 1 - s for data, 0 for generated ones, 1 for the generator

    Shapes: scores z [*S, N], real of the same shape or one number. Source: Goodfellow et al. 2014, "Generative
    adversarial nets", section 3; one-sided smoothing: Salimans et al. 2016, "Improved techniques for training GANs",
    section 3.4.
    """

    kind = "non_saturating"
    learnt = (1e-2, 1e-2)

    def __init__(self, label_smoothing: UnitInterval = 0.0) -> None:
        self.label_smoothing = label_smoothing
        self._cross_entropy = BCEWithLogits()

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        smoothed = target.detach().to(prediction.dtype) * (1 - self.label_smoothing)
        return self._cross_entropy.forward(prediction, smoothed.expand(prediction.shape))

    def of_generator(self, scores: Tensor) -> tuple[Tensor, Cache]:
        return self._cross_entropy.forward(scores, torch.ones_like(scores))

    def backward(self, cache: Cache) -> Tensor:
        return self._cross_entropy.backward(cache)


class LeastSquares(AdversarialLoss):
    """Squared distances of scores from 1 for data, and from 0 for generated examples.

    With label smoothing s (of data only):
    Forward:  discriminator  mean of (z - 1 + s)^2 for data,  mean of z^2 for generated ones,
              generator      mean of (z - 1)^2
    Backward: dz = 2 (z - t) / M for M scores,  t = 1 - s for data, 0 for generated ones, 1 for the generator

    Shapes: scores z [*S, N], real of the same shape or one number. Source: Mao et al. 2017, "Least squares generative
    adversarial networks", eq. 2 and 9, without the factor 1/2.
    """

    kind = "least_squares"

    def __init__(self, label_smoothing: UnitInterval = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        difference = prediction.detach() - target.detach().to(prediction.dtype) * (1 - self.label_smoothing)
        return difference.square().mean(), Cache((difference,))

    def of_generator(self, scores: Tensor) -> tuple[Tensor, Cache]:
        difference = scores.detach() - 1
        return difference.square().mean(), Cache((difference,))

    def backward(self, cache: Cache) -> Tensor:
        (difference,) = cache.take()
        gradient: Tensor = difference * (2 / difference.numel())
        return gradient


class ScoreRaising(AdversarialLoss):
    """The base of losses whose generator raises its scores: L = -mean of z, dz = -1 / M for M scores.

    A cache holds the gradient itself.
    """

    def of_generator(self, scores: Tensor) -> tuple[Tensor, Cache]:
        return -scores.detach().mean(), Cache((torch.full_like(scores, -1 / scores.numel()),))

    def backward(self, cache: Cache) -> Tensor:
        gradient: Tensor
        (gradient,) = cache.take()
        return gradient


class Hinge(ScoreRaising):
    """Scores of data are pushed above 1, those of generated examples below -1; the generator raises its own.

    With t = 1 for data and -1 for generated examples:
    Forward:  discriminator  mean of max(0, 1 - t z),   generator  -mean of z
    Backward: discriminator  dz = -t / M where t z < 1, else 0, for M scores,   generator  dz = -1 / M

    Shapes: scores z [*S, N], real of the same shape or one number. Source: Lim & Ye 2017, "Geometric GAN"; Miyato et
    al. 2018, "Spectral normalization for generative adversarial networks", eq. 16 and 17.
    """

    kind = "hinge"
    learnt = (-1.0, 1e-3)

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        sign = target.detach().to(prediction.dtype) * 2 - 1
        margin = 1 - sign * prediction.detach()
        gradient = torch.where(margin > 0, -sign, torch.zeros_like(margin)) / margin.numel()
        return margin.clamp(min=0).mean(), Cache((gradient,))


class Wasserstein(ScoreRaising):
    """The difference of mean scores, of a critic whose slope is kept to at most 1 by a penalty.

    With t = 1 for data and -1 for generated examples:
    Forward:  critic  -mean of t z,   generator  -mean of z
    Backward: critic  dz = -t / M for M scores,   generator  dz = -1 / M

    The critic's loss has `penalty` times a `LipschitzPenalty` added to it. With `penalty` 0 only layers such as
    spectral_norm can limit its slope.
    Shapes: scores z [*S, N], real of the same shape or one number. Source: Arjovsky, Chintala & Bottou 2017,
    "Wasserstein GAN", eq. 2.
    """

    kind = "wasserstein"
    learnt = (-1.0, -1.0)

    def __init__(self, penalty: NonNegativeFloat = 10.0) -> None:
        self.penalty = penalty

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        sign = target.detach().to(prediction.dtype) * 2 - 1
        gradient = (-sign / prediction.numel()).expand(prediction.shape)
        return (gradient * prediction.detach()).sum(), Cache((gradient,))


class LipschitzPenalty(Loss):
    """Penalise slopes above 1 between pairs of points: a critic's Lipschitz condition, checked on pairs.

    With the scores za and zb of two points at a distance d = |a - b|, and the slope q = |za - zb| / d:
    Forward:  L = mean of max(0, q - 1)^2
    Backward: dza = 2 max(0, q - 1) sign(za - zb) / (d M) for M pairs,   dzb = -dza

    The usual gradient penalty (Gulrajani et al. 2017) needs |dz/dx| in the loss, and so the derivative of a backward
    pass. A difference quotient along a line between data and generated example needs two forward passes and one
    backward pass; where the two points are close it is the slope in the direction in which the critic of Gulrajani et
    al., proposition 1, has its gradient. Like the penalty of Petzka et al. it leaves slopes below 1 alone.

    Two points at the same place have no slope, and count as 0.
    Shapes: prediction [*S, 2 M], the scores of points a, then those of points b; target [M], the distances.
    Source: Petzka, Fischer & Lukovnikov 2018, "On the regularization of Wasserstein GANs", eq. 8; on pairs: Terjek
    2020, "Adversarial Lipschitz regularization", eq. 5.
    """

    kind = "lipschitz_penalty"
    targets = "values"

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        first, second = prediction.detach().flatten(0, -2).sum(0).chunk(2)
        difference, together = first - second, target <= 0
        distance = target.masked_fill(together, 1.0)
        excess = (difference.abs() / distance - 1).clamp(min=0).masked_fill(together, 0.0)
        gradient = 2 * excess * difference.sign() / (distance * len(target))
        return excess.square().mean(), Cache((torch.cat([gradient, -gradient]), prediction.shape))

    def backward(self, cache: Cache) -> Tensor:
        gradient, shape = cache.take()
        expanded: Tensor = gradient.expand(shape)
        return expanded

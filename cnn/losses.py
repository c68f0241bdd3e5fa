"""Losses: one number that says how far predictions are from targets, and its gradient.

    forward(prediction, target) -> (value, cache)        value: a tensor without axes
    backward(cache) -> dL/dprediction

Values are means, as PyTorch's with `reduction="mean"`: over all targets where these are classes, else over all values.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from cnn.layer import Cache


class Loss:
    """The base of every loss. `targets`: what it compares with, class numbers or values like the prediction."""

    kind: ClassVar[str]
    targets: ClassVar[Literal["classes", "values"]]

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        raise NotImplementedError

    def backward(self, cache: Cache) -> Tensor:
        raise NotImplementedError


class CrossEntropy(Loss):
    """The negative log-likelihood of the right class under the softmax of the logits, as `torch.nn.CrossEntropyLoss`.

    Forward:  L = mean over n of (log sum over k of exp(z_k) - z_target), computed from z - max z: no overflow, no log 0
    Backward: dz_k = (softmax(z)_k - [k = target]) / M, M being the number of targets

    Shapes: logits z [K, *S, N], target [*S, N] of integers in [0, K).
    Source: Goodfellow, Bengio & Courville 2016, "Deep Learning", section 6.2.2.3.
    """

    kind = "cross_entropy"
    targets = "classes"

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        logits = prediction - prediction.amax(0)
        exponentials = torch.exp(logits)
        total = exponentials.sum(0)
        value = (torch.log(total) - logits.gather(0, target[None])[0]).mean()
        return value, Cache((exponentials.div_(total), target))

    def backward(self, cache: Cache) -> Tensor:
        probabilities: Tensor
        probabilities, target = cache.take()
        hit = torch.full_like(target[None], -1, dtype=probabilities.dtype)
        return probabilities.scatter_add_(0, target[None], hit).div_(target.numel())


class L2(Loss):
    """The mean squared error, as `torch.nn.MSELoss`.

    Forward:  L = mean of (y - t)^2
    Backward: dy = 2 (y - t) / M, M being the number of values

    Shapes: y, t any, both alike. Source: Bishop 2006, "Pattern recognition and machine learning", section 5.2.
    """

    kind = "l2"
    targets = "values"

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        difference = _difference(prediction, target)
        return difference.square().mean(), Cache((difference,))

    def backward(self, cache: Cache) -> Tensor:
        difference: Tensor
        (difference,) = cache.take()
        return difference.mul_(2 / difference.numel())


class L1(Loss):
    """The mean absolute error, as `torch.nn.L1Loss`.

    Forward:  L = mean of |y - t|
    Backward: dy = sign(y - t) / M, M being the number of values; 0 where y = t

    Shapes: y, t any, both alike. Source: Bishop 2006, "Pattern recognition and machine learning", section 1.5.5.
    """

    kind = "l1"
    targets = "values"

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        difference = _difference(prediction, target)
        return difference.abs().mean(), Cache((difference,))

    def backward(self, cache: Cache) -> Tensor:
        difference: Tensor
        (difference,) = cache.take()
        return difference.sign_().div_(difference.numel())


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.shape != target.shape:
        raise ValueError(f"the prediction is {list(prediction.shape)}, the target {list(target.shape)}")
    return prediction - target


LOSSES: dict[str, type[Loss]] = {loss.kind: loss for loss in (CrossEntropy, L2, L1)}

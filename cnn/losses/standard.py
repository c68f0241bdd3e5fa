"""Losses: one number for how far predictions are from targets, and its gradient.

    forward(prediction, target) -> (value, cache)        value: a tensor without axes
    backward(cache) -> dL/dprediction

Values are means, as in PyTorch with `reduction="mean"`: over all targets if these are classes, else over all values.
The gradients are derived in docs/losses.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from cnn import ops
from cnn.arguments import NonNegativeFloat, PositiveFloat, UnitInterval
from cnn.faults import ConfigError, Fault
from cnn.layer import Cache

PerClass = Annotated[Sequence[NonNegativeFloat], Field(min_length=1)]


class Loss:
    """The base of every loss. `targets`: what it takes, class indices, values of the prediction's shape, or whether
    scores are those of data.
    """

    kind: ClassVar[str]
    targets: ClassVar[Literal["classes", "values", "real"]]
    contains: ClassVar[str | None] = None
    """The kind of layer that is part of the loss: a network that ends in one is trained on the input of that layer."""

    def check_classes(self, count: int) -> None:
        """Raise ConfigError if an argument, which is the fault's place, doesn't fit this number of outputs."""

    def share(self, labels: Tensor) -> Tensor | int:
        """The weight of a batch with these classes [*S, N] in the mean over several batches.

        `forward` divides the batch's sum by it. Where it is 0 there is no mean, and `forward` gives the sum.
        """
        return labels.numel()

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        raise NotImplementedError

    def backward(self, cache: Cache) -> Tensor:
        raise NotImplementedError


class CrossEntropy(Loss):
    """The negative log-likelihood of the right class under the softmax of the logits, as `torch.nn.CrossEntropyLoss`.

    With class weights w (1 by default), label smoothing s, target t_n at n and
    q_nc = (1 - s) w_c [c = t_n] + s / K w_c:

    Forward:  L = sum over n, c of q_nc (log sum over k of exp(z_nk) - z_nc) / W,   W = sum over n of w_(t_n)
    Backward: dz_nc = (Q_n softmax(z_n)_c - q_nc) / W,   Q_n = sum over c of q_nc

    Computed from z - max z: no overflow, no log 0. If all targets have weight 0 there is no mean (torch gives NaN or
    infinity): L and dz are then the sums, with W = 1. Without label smoothing these are 0. With it, the other classes
    have a part in them, which counts in the mean over several batches.

    Shapes: logits z [K, *S, N], target [*S, N] of integers in [0, K) of any integer type, weight [K].
    Source: Goodfellow, Bengio & Courville 2016, "Deep Learning", section 6.2.2.3; label smoothing: Szegedy et al. 2016,
    "Rethinking the Inception architecture for computer vision", section 7.
    """

    kind = "cross_entropy"
    targets = "classes"
    contains = "softmax"

    def __init__(self, weight: PerClass | None = None, label_smoothing: UnitInterval = 0.0) -> None:
        if weight is not None and not any(weight):
            raise ConfigError([Fault("weight", "every weight is 0, give at least one greater than 0")])
        self.weight = weight
        self.label_smoothing = label_smoothing

    def check_classes(self, count: int) -> None:
        _check_length("weight", self.weight, count)

    def share(self, labels: Tensor) -> Tensor | int:
        if self.weight is None:
            return labels.numel()
        return ops.constant(tuple(self.weight), torch.float64, labels.device)[_classes(labels)].sum()

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        weight = None if self.weight is None else ops.constant(tuple(self.weight), prediction.dtype, prediction.device)
        logits, classes = prediction.detach().flatten(1), _classes(target).flatten()
        value, gradient = ops.cross_entropy(logits, classes, weight, self.label_smoothing)
        return value, Cache((gradient.view(prediction.shape),))

    def backward(self, cache: Cache) -> Tensor:
        gradient: Tensor
        (gradient,) = cache.take()
        return gradient


class BCEWithLogits(Loss):
    """The binary cross entropy of targets and the sigmoid of the logits, for each value separately, as
    `torch.nn.BCEWithLogitsLoss`.

    Forward:  L = mean of a r(z) + (1 - t) r(-z),   a = pos_weight * t,
              r(z) = log(1 + exp(-z)) = log(1 + exp(-|z|)) + max(-z, 0), so that nothing overflows or cancels
    Backward: dz = ((1 - t) sigmoid(z) - a sigmoid(-z)) / M for M values; without weights (sigmoid(z) - t) / M

    Shapes: logits z and t [K, *S, N], t in [0, 1]; pos_weight [K], the weight of a class's positive targets.
    Source: Goodfellow, Bengio & Courville 2016, "Deep Learning", section 6.2.2.2.
    """

    kind = "bce_with_logits"
    targets = "values"
    contains = "sigmoid"

    def __init__(self, pos_weight: PerClass | None = None) -> None:
        self.pos_weight = pos_weight

    def check_classes(self, count: int) -> None:
        _check_length("pos_weight", self.pos_weight, count)

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        prediction, target = _alike(prediction, target)
        positive = target if self.pos_weight is None else _per_class(self.pos_weight, target) * target
        value = (positive * minus_log_sigmoid(prediction) + (1 - target) * minus_log_sigmoid(-prediction)).mean()
        return value, Cache((prediction, target, positive))

    def backward(self, cache: Cache) -> Tensor:
        prediction, target, positive = cache.take()
        odds = torch.exp(prediction)
        complement = 1 / (1 + odds)
        sigmoid = torch.where(prediction < 0, odds * complement, 1 - complement)  # far below 0, 1 - complement is 0
        gradient: Tensor = (1 - target) * sigmoid - positive / (1 + odds)
        return gradient.div_(gradient.numel())


def minus_log_sigmoid(z: Tensor) -> Tensor:
    """log(1 + exp(-z)), elementwise, without overflow."""
    return torch.log1p(torch.exp(-z.abs())) + (-z).clamp(min=0)


class L2(Loss):
    """The mean squared error, as `torch.nn.MSELoss`.

    Forward:  L = mean of (y - t)^2
    Backward: dy = 2 (y - t) / M for M values

    Shapes: y and t of the same shape. Source: Bishop 2006, "Pattern recognition and machine learning", section 5.2.
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
    Backward: dy = sign(y - t) / M for M values; 0 where y = t

    Shapes: y and t of the same shape. Source: Bishop 2006, "Pattern recognition and machine learning", section 1.5.5.
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


class Huber(Loss):
    """Squared for small errors, linear for large ones, as `torch.nn.HuberLoss`.

    With d = y - t and c = d clamped to [-delta, delta]:

    Forward:  L = mean of c (d - c / 2), which is d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2)
    Backward: dy = c / M for M values

    Shapes: y and t of the same shape; delta in the unit of y.
    Source: Huber 1964, "Robust estimation of a location parameter".
    """

    kind = "huber"
    targets = "values"

    def __init__(self, delta: PositiveFloat = 1.0) -> None:
        self.delta = delta

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        difference = _difference(prediction, target)
        cut = difference.clamp(-self.delta, self.delta)
        return (cut * (difference - cut / 2)).mean(), Cache((cut,))

    def backward(self, cache: Cache) -> Tensor:
        cut: Tensor
        (cut,) = cache.take()
        return cut.div_(cut.numel())


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    prediction, target = _alike(prediction, target)
    return prediction - target


def _alike(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the prediction's dtype, outside of autograd. Raises ValueError if their shapes differ."""
    if prediction.shape != target.shape:
        raise ValueError(f"the prediction is {list(prediction.shape)}, the target {list(target.shape)}")
    return prediction.detach(), target.detach().to(prediction.dtype)


def _classes(target: Tensor) -> Tensor:
    """Classes as int64. Raises ValueError for anything but integers."""
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"the targets are {target.dtype}, but classes are integers, such as torch.int64")
    return target.to(torch.int64)


def _check_length(argument: str, values: Sequence[float] | None, count: int) -> None:
    if values is not None and len(values) != count:
        problem = f"{len(values)} numbers for {count} classes, give {count}, one per class"
        raise ConfigError([Fault(argument, problem)])


def _per_class(numbers: Sequence[float], like: Tensor) -> Tensor:
    """One number per class, in a shape that broadcasts with `like` [K, *S, N]."""
    return ops.constant(tuple(numbers), like.dtype, like.device).view(-1, *[1] * (like.ndim - 1))

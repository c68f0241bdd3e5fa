"""Classification: a network gives one number per class, and the largest names the class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cnn import Graph, Layer, Mode, Sequential
from cnn.layers.activation import Softmax
from cnn.losses import CrossEntropy, Loss
from cnn.optimizers import Optimizer
from runners.data.batches import Batch


@dataclass
class Totals:
    """Sums over examples, kept on the device until somebody asks for a mean."""

    loss: Tensor | float = 0.0
    correct: Tensor | float = 0.0
    count: int = 0

    def add(self, loss: Tensor, correct: Tensor, count: int) -> None:
        self.loss = self.loss + loss * count
        self.correct = self.correct + correct
        self.count += count

    def means(self, prefix: str) -> dict[str, float]:
        """Mean loss and accuracy (a fraction) under `prefix/loss` and `prefix/accuracy`."""
        return {f"{prefix}/loss": float(self.loss) / self.count, f"{prefix}/accuracy": float(self.correct) / self.count}


class Classification:
    """Training steps and evaluation of a classifier.

    Cross entropy takes logits: a network that ends in softmax is trained and evaluated on what goes into it. Other
    losses compare the network's whole output with the one-hot target.
    """

    def __init__(self, network: Sequential, loss: Loss) -> None:
        self.network = network
        self.loss = loss
        self.scored: Graph = without_softmax(network) if isinstance(loss, CrossEntropy) else network

    def train_step(self, batch: Batch, optimizer: Optimizer, lr: float, totals: Totals) -> None:
        """Forward, loss, backward, one step of the optimizer."""
        flat = self.network.flat
        flat.grad.zero_()
        y, cache = self.scored.forward(batch.x, Mode(train=True))
        loss, loss_cache = self.loss.forward(y, self._target(batch.labels, y))
        self.scored.backward(self.loss.backward(loss_cache), cache, need_dx=False)
        optimizer.step(flat, lr)
        totals.add(loss, (y.argmax(0) == batch.labels).sum(), len(batch))

    def evaluate(self, batch: Batch, totals: Totals) -> Tensor:
        """Add a batch's loss and hits to the totals; returns the predicted classes [N]."""
        y, _ = self.scored.forward(batch.x, Mode(train=False, keep_cache=False))
        loss, _ = self.loss.forward(y, self._target(batch.labels, y))
        predicted = y.argmax(0)
        totals.add(loss, (predicted == batch.labels).sum(), len(batch))
        return predicted

    def _target(self, labels: Tensor, y: Tensor) -> Tensor:
        return labels if self.loss.targets == "classes" else one_hot(labels, like=y)


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """Classes [N] as columns [K, N] with a 1 at the class, in the shape and type of `like`."""
    return torch.zeros_like(like).scatter_(0, labels[None], 1)


def confusion(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How often each class [row] was taken for each [column]."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def without_softmax(network: Sequential) -> Sequential:
    """The network, sharing its layers, without a softmax at its end."""
    layers: list[tuple[str, Layer]] = list(network.layers.items())
    if isinstance(layers[-1][1], Softmax) and len(layers) > 1:
        layers.pop()
    return Sequential(dict(layers))


def probabilities(network: Sequential, loss: str, x: Tensor) -> Tensor:
    """The probability of each class, [K, N].

    Where the network was trained on logits, their softmax. Else its outputs estimate one-hot targets, whose mean is the
    probability: they are cut off at zero and scaled to 1 in sum.
    """
    if loss == CrossEntropy.kind:
        logits, _ = without_softmax(network).forward(x, Mode(train=False, keep_cache=False))
        return Softmax().forward(logits, Mode(train=False, keep_cache=False))[0]
    estimates, _ = network.forward(x, Mode(train=False, keep_cache=False))
    positive = estimates.clamp(min=torch.finfo(estimates.dtype).tiny)
    return positive / positive.sum(0)

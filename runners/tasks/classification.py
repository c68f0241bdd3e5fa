"""Classification: a network gives one number per class, and the largest names the class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cnn import Mode, Sequential
from cnn.graphs.fusion import fuse
from cnn.layers.activation import Softmax
from cnn.losses import LOSSES, Loss, minus_log_sigmoid
from cnn.optimizers import Optimizer, clip_grad_norm
from runners.data.batches import Batch
from runners.divergence import Diverged, finite, first_fault

TRAINING = Mode(train=True)
EVALUATION = Mode(train=False, keep_cache=False)


@dataclass
class Totals:
    """Sums over examples, kept on the device until somebody asks for a mean."""

    loss: Tensor | float = 0.0
    share: Tensor | float = 0.0
    correct: Tensor | float = 0.0
    count: int = 0

    def add(self, loss: Tensor, share: Tensor | int, correct: Tensor, count: int) -> None:
        """Add a batch: its mean loss, how much that counts, its hits and its examples."""
        self.loss = self.loss + loss * share
        self.share = self.share + share
        self.correct = self.correct + correct
        self.count += count

    def means(self, prefix: str) -> dict[str, float]:
        """Mean loss and accuracy (a fraction) under `prefix/loss` and `prefix/accuracy`.

        The loss of examples whose classes all have weight 0 is 0.
        """
        share = float(self.share)
        loss = float(self.loss) / share if share else 0.0
        return {f"{prefix}/loss": loss, f"{prefix}/accuracy": float(self.correct) / self.count}

    def numbers(self) -> Totals:
        """The sums as numbers; to go on with them gives the same bits."""
        return Totals(float(self.loss), float(self.share), float(self.correct), self.count)


class Classification:
    """Training steps and evaluation of a classifier.

    Some losses take logits: a network that ends in the layer that such a loss contains is trained and evaluated on what
    goes into it. Losses of values compare with the one-hot target.
    """

    def __init__(self, network: Sequential, loss: Loss) -> None:
        self.network = network
        self.loss = loss
        self.scored = fuse(network.without_last(loss.contains))

    def train_step(
        self,
        batches: Sequence[Batch],
        optimizer: Optimizer,
        lr: float,
        totals: Totals,
        *,
        mode: Mode = TRAINING,
        max_norm: float | None = None,
    ) -> None:
        """Forward, loss and backward of each batch, then one step of the optimizer, as if they were one large batch.

        Each gradient counts with its batch's share, the losses being means. `max_norm`: the length to which the whole
        gradient is clipped. Raises Diverged, and changes no weight, where loss or gradient aren't finite.
        """
        flat = self.network.flat
        flat.grad.zero_()
        shares = [self.loss.share(batch.labels) for batch in batches]
        whole = sum(shares)
        if isinstance(whole, Tensor):  # where no class of these batches has a weight there is nothing to share
            whole = whole.masked_fill(whole == 0, 1)
        for batch, share in zip(batches, shares, strict=True):
            y, cache = self.scored.forward(batch.x, mode)
            loss, loss_cache = self.loss.forward(y, self._target(batch.labels, y))
            dy = self.loss.backward(loss_cache)
            if len(batches) > 1:
                dy *= share / whole
            self.scored.backward(dy, cache, need_dx=False)
            totals.add(loss, share, (y.argmax(0) == batch.labels).sum(), len(batch))
        if not finite(torch.as_tensor(totals.loss), flat.grad):
            raise Diverged(self.first_fault(batches, mode))
        if max_norm is not None:
            clip_grad_norm(flat.grad, max_norm)
        optimizer.step(flat, lr)

    def first_fault(self, batches: Iterable[Batch], mode: Mode = EVALUATION) -> str:
        """What isn't finite first when these batches run again, with the noise that they had."""
        network = self.network.without_last(self.loss.contains)
        if mode.generator is not None:
            mode.generator.manual_seed(mode.generator.initial_seed())
        for batch in batches:
            fault = first_fault(network, self.loss, batch.x, partial(self._target, batch.labels), mode)
            if fault:
                return fault
        return "the sum over the batches"

    def evaluate(self, batch: Batch, totals: Totals) -> Tensor:
        """Add a batch's loss and hits to the totals; returns the predicted classes [N]."""
        y, _ = self.scored.forward(batch.x, EVALUATION)
        loss, _ = self.loss.forward(y, self._target(batch.labels, y))
        predicted = y.argmax(0)
        totals.add(loss, self.loss.share(batch.labels), (predicted == batch.labels).sum(), len(batch))
        return predicted

    def _target(self, labels: Tensor, y: Tensor) -> Tensor:
        return labels if self.loss.targets == "classes" else one_hot(labels, like=y)


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """Classes [N] as columns [K, N] with a 1 at the class, in the shape and type of `like`."""
    return torch.zeros_like(like).scatter_(0, labels[None], 1)


def confusion(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How often each class [row] was taken for each [column]."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def probabilities(network: Sequential, loss: str, x: Tensor) -> Tensor:
    """The probability of each class, [K, N], in the order of the network's outputs.

    Where the network was trained on logits, what the loss makes of them: their softmax, or their sigmoid scaled to 1 in
    sum. Else its outputs estimate one-hot targets, whose mean is the probability: cut off at zero and scaled.
    """
    contained = LOSSES[loss].contains
    outputs, _ = fuse(network.without_last(contained)).forward(x, EVALUATION)
    if contained == "sigmoid":  # its logarithm keeps apart what is nearly 0
        outputs = -minus_log_sigmoid(outputs)
    shares, _ = Softmax().forward(outputs, EVALUATION)
    if contained:
        return shares
    positive = outputs.clamp(min=0) + NEGLIGIBLE * shares
    return positive / positive.sum(0)


NEGLIGIBLE = 1e-9
"""What keeps outputs apart that are all cut off at zero."""

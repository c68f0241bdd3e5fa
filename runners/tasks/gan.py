"""Generative adversarial networks: a generator learns from a discriminator that tells its pictures from real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn import Cache, Graph, Mode, Sequential, ops
from cnn.arguments import Fraction, Positive
from cnn.averaging import MovingAverage
from cnn.faults import Fault
from cnn.graphs.adversarial import Judged, with_labels
from cnn.graphs.fusion import fuse
from cnn.losses import AdversarialLoss, LipschitzPenalty, Loss, kinds_taking
from runners.data.batches import Batch
from runners.data.dataset import Description
from runners.files import checkpoint
from runners.tasks.classification import one_hot
from runners.tasks.generative import JUDGED, Generative, output_faults
from runners.tasks.sums import Sums
from runners.tasks.task import EVALUATION, Metric, Step, shares

GAP = 0.1
"""The distance between the two points of a slope, as a share of that between data and generated example."""


class GAN(Generative):
    """Alternating steps of a discriminator and a generator.

    Of every `critic_steps` + 1 steps the last one is the generator's. Its gradient passes through the discriminator,
    whose own gradients are left alone. `conditional`: the class of each example is joined to noise and to the
    discriminator's input, as one value, or plane, per class. `ema`: samples are drawn with a moving average of the
    generator's weights with this decay; null: with the weights themselves. Pixels are in [-1, 1].
    """

    kind = "gan"
    networks = ("generator", "discriminator")
    metrics = (
        Metric("generator_loss", "lower", optional=True),
        Metric("discriminator_loss", "lower", optional=True),
        *JUDGED,
    )
    monitor = "val/frechet"
    replayable = True
    mean_and_std = (0.5, 0.5)

    def __init__(
        self,
        latent_size: Positive = 64,
        critic_steps: Positive = 1,
        conditional: bool = False,
        ema: Fraction | None = 0.99,
        judge: str | None = "auto",
        eval_every: Positive = 1,
    ) -> None:
        self.latent_size = latent_size
        self.critic_steps = critic_steps
        self.conditional = conditional
        self.ema = ema
        self.judge_from = judge
        self.eval_every = eval_every

    def input_shapes(self, data: Description) -> dict[str, tuple[int, ...]]:
        if self.conditional and not data.classes:
            return {}
        labels = data.classes or 0 if self.conditional else 0
        known: dict[str, tuple[int, ...]] = {"generator": (self.latent_size + labels,)}
        if data.input_shape:
            known["discriminator"] = (data.input_shape[0] + labels, *data.input_shape[1:])
        return known

    @property
    def conditional_classes(self) -> int:
        return self.graphs["generator"].input_shape[0] - self.latent_size

    def faults(self, graphs: Mapping[str, Graph], loss: Loss | None, data: Description) -> list[Fault]:
        faults = []
        if self.conditional and data.target_shape is not None and not data.classes:
            faults.append(Fault("task.conditional", "the data have no classes, give false"))
        faults += output_faults(
            graphs,
            generator=(data.input_shape, "a picture like the data's, with values in [-1, 1]"),
            discriminator=((1,), "one score"),
        )
        if loss and not isinstance(loss, AdversarialLoss):
            faults.append(Fault("loss.name", f"{loss.kind} doesn't judge a generator, give {kinds_taking('real')}"))
        return faults

    def build(self, graphs: Mapping[str, Sequential], loss: Loss) -> None:
        super().build(graphs, loss)
        self.generator, self.discriminator = (fuse(graphs[name]) for name in self.networks)

    @property
    def average(self) -> MovingAverage | None:
        """The average of the generator, which starts from its weights when it is first asked for."""
        if self.ema is None:
            return None
        if not hasattr(self, "_average"):
            self._average = MovingAverage(self.graphs["generator"], self.ema)
        return self._average

    @property
    def uses_classes(self) -> bool:
        return self.conditional

    def variant(self, index: int) -> str:
        """The network that a step updates."""
        return "generator" if index % (self.critic_steps + 1) == self.critic_steps else "discriminator"

    def train_step(self, batches: Sequence[Batch], step: Step, sums: Sums) -> None:
        """One step of the discriminator or of the generator, by the index of the step."""
        name = self.variant(step.index)
        trained = self.trained[name]
        ops.clear(trained.graph.flat.grad)
        add_gradient = self._of_generator if name == "generator" else self._of_discriminator
        for batch, share in zip(batches, shares(batches, step), strict=True):
            loss = add_gradient(batch, share, step.mode)
            sums.add(f"{name}_loss", loss * len(batch), len(batch))
        trained.update(step, sums.total(f"{name}_loss"))
        if name == "generator" and self.average is not None:
            self.average.update(trained.graph)

    def _of_generator(self, batch: Batch, share: float, mode: Mode) -> Tensor:
        """Add the generator's gradient, which passes through the discriminator; returns its loss."""
        labels = self._labels(batch.targets)
        judged = Judged(self.generator, self.discriminator, labels)
        scores, cache = judged.forward(self._noise(len(batch), labels, mode), mode)
        loss, loss_cache = self.adversarial.of_generator(scores)
        judged.backward(self.adversarial.backward(loss_cache) * share, cache, need_dx=False)
        return loss

    def _of_discriminator(self, batch: Batch, share: float, mode: Mode) -> Tensor:
        """Add the discriminator's gradient for a batch of data and one of the generator's; returns its loss."""
        labels = self._labels(batch.targets)
        generated, _ = self.generator.forward(self._noise(len(batch), labels, mode), replace(mode, keep_cache=False))
        total = self._told_apart(batch.x, 1.0, labels, share, mode)
        total = total + self._told_apart(generated, 0.0, labels, share, mode)
        if self.adversarial.penalty:
            total = total + self._penalised(batch.x, generated, labels, share, mode)
        return total

    def _told_apart(self, x: Tensor, real: float, labels: Tensor | None, share: float, mode: Mode) -> Tensor:
        scores, cache = self.discriminator.forward(with_labels(x, labels), mode)
        loss, loss_cache = self.loss.forward(scores, torch.full_like(scores, real))
        self.discriminator.backward(self.loss.backward(loss_cache) * share, cache, need_dx=False)
        return loss

    def _penalised(self, x: Tensor, generated: Tensor, labels: Tensor | None, share: float, mode: Mode) -> Tensor:
        """Add the gradient of the penalty on slopes, between two points that are close to each other and on the way
        from x to `generated`; returns the penalty.

        The discriminator is in evaluation mode: with dropout, or statistics of the batch, a score would also depend on
        other things than its point.
        """
        weight = self.adversarial.penalty
        start = torch.rand(x.shape[-1], generator=mode.generator, dtype=x.dtype, device=x.device) * (1 - GAP)
        way = generated - x
        pairs = torch.cat([x + start * way, x + (start + GAP) * way], -1)
        distance = way.flatten(0, -2).square().sum(0).sqrt() * GAP
        twice = None if labels is None else torch.cat([labels, labels], -1)
        scores, cache = self.discriminator.forward(with_labels(pairs, twice), replace(mode, train=False))
        penalty = LipschitzPenalty()
        loss, loss_cache = penalty.forward(scores, distance)
        self.discriminator.backward(penalty.backward(loss_cache) * (weight * share), cache, need_dx=False)
        return loss * weight

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        """Add both losses of a batch, with noise that never changes; keeps the judge's features of the pictures."""
        labels = self._labels(batch.targets)
        made, _ = self.generator.forward(self._joined(self.latent(batch.first, len(batch)), labels), EVALUATION)
        (real, _), (fake, _) = (self.discriminator.forward(with_labels(x, labels), EVALUATION) for x in (batch.x, made))
        of_real, _ = self.loss.forward(real, torch.ones_like(real))
        of_fake, _ = self.loss.forward(fake, torch.zeros_like(fake))
        sums.add("discriminator_loss", (of_real + of_fake) * len(batch), len(batch))
        sums.add("generator_loss", self.adversarial.of_generator(fake)[0] * len(batch), len(batch))
        return self.judged_features(_in_unit_range(batch.x))

    def predict(self, x: Tensor) -> Tensor:
        """The pictures of noise x [L, N]; of a conditional generator one of each class in turn."""
        return self.draw(x, self.classes_of(0, x.shape[-1]))

    def draw(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        average = self.average
        generator = self.generator if average is None else fuse(average.graph)
        labels = None if classes is None else self._labels(classes.to(z.device))
        made, _ = generator.forward(self._joined(z, labels), EVALUATION)
        return _in_unit_range(made)

    def loss_check(self, name: str, data: Description, count: int) -> tuple[Graph, Loss, Tensor]:
        like = self.graphs[name].flat.data
        if name == "generator":
            classes = self.classes_of(0, count)
            labels = None if classes is None else self._labels(classes.to(like.device))
            return Judged(self.generator, self.discriminator, labels), _OfGenerator(self.adversarial), like
        real = torch.arange(count, device=like.device)[None] % 2
        return self.graphs[name], _Penalised(self.adversarial), real.to(like.dtype)

    def learnt(self, index: int) -> tuple[str, float]:
        name = self.variant(index)
        return f"{name}_loss", self.adversarial.learnt[self.networks.index(name)]

    def state(self) -> dict[str, Any]:
        """The average of the generator."""
        average, judged = self.average, super().state()
        if average is None:
            return judged
        return {**judged, "updates": average.updates, "average": checkpoint.arrays(average.graph.state())}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        average = self.average
        if average is not None:
            updates, arrays = state["updates"], state["average"]
            if type(updates) is not int or not all(np.isfinite(array).all() for array in arrays.values()):
                raise ValueError("the average of the generator isn't made of finite numbers")
            average.graph.load_state(checkpoint.tensors(arrays))
            average.updates = updates

    @property
    def adversarial(self) -> AdversarialLoss:
        assert isinstance(self.loss, AdversarialLoss)
        return self.loss

    def _labels(self, classes: Tensor) -> Tensor | None:
        """Classes [N] as columns [K, N] with a 1 at the class, for a conditional pair."""
        if not self.conditional:
            return None
        like = self.graphs["generator"].flat.data
        return one_hot(classes, like.new_empty(self.conditional_classes, len(classes)))

    def _noise(self, count: int, labels: Tensor | None, mode: Mode) -> Tensor:
        """The generator's input in training, [L, N] or [L + K, N]."""
        like = self.graphs["generator"].flat.data
        z = torch.randn(self.latent_size, count, generator=mode.generator, dtype=like.dtype, device=like.device)
        return self._joined(z, labels)

    def _joined(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return z if labels is None else torch.cat([z, labels])


def _in_unit_range(x: Tensor) -> Tensor:
    """Pixels from [-1, 1] in [0, 1]."""
    return (x + 1) / 2


class _OfGenerator(Loss):
    """The generator's side of an adversarial loss, as a loss of its own, for gradient checks."""

    targets = "values"

    def __init__(self, loss: AdversarialLoss) -> None:
        self.loss = loss

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        return self.loss.of_generator(prediction)

    def backward(self, cache: Cache) -> Tensor:
        return self.loss.backward(cache)


class _Penalised(Loss):
    """A discriminator's loss with the penalty on slopes that it may have, for gradient checks: pairs are the two halves
    of a batch, at a distance of 1.
    """

    targets = "real"

    def __init__(self, loss: AdversarialLoss) -> None:
        self.loss = loss
        self.weight = loss.penalty

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        value, cache = self.loss.forward(prediction, target)
        penalty, its_cache = LipschitzPenalty().forward(prediction, prediction.new_ones(prediction.shape[-1] // 2))
        return value + self.weight * penalty, Cache((cache, its_cache))

    def backward(self, cache: Cache) -> Tensor:
        cache, its_cache = cache.take()
        return self.loss.backward(cache) + self.weight * LipschitzPenalty().backward(its_cache)

"""A variational autoencoder: it learns a compressed form of pictures, and a distribution to draw them from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cnn import Graph, Sequential, ops
from cnn.arguments import NonNegative, NonNegativeFloat, Positive
from cnn.faults import Fault
from cnn.graphs.fusion import fuse
from cnn.graphs.variational import Variational
from cnn.layers.activation import logistic
from cnn.losses import Loss, NegativeELBO, kl_divergence
from runners.data.batches import Batch
from runners.data.dataset import Description
from runners.tasks.generative import JUDGED, Generative, output_faults
from runners.tasks.noise import fixed_noise
from runners.tasks.sums import Sums
from runners.tasks.task import EVALUATION, Metric, Step, shares, update
from runners.tasks.watching import WatchedLoss, watch_loss

BINARIZED = 1
"""The seed of the binary pictures of an evaluation; latent vectors have seed 0."""


class VAE(Generative):
    """Training steps and evaluation of an encoder and a decoder.

    The decoder gives the logit of each pixel, a Bernoulli variable. `binarize`: pictures are drawn as such variables,
    again in each training step, and once for all evaluations; otherwise their grey values are the targets. `beta`: the
    weight of the KL term, reached after `beta_warmup_steps` steps. `elbo` is the evidence lower bound with beta = 1, in
    nats per example, with one sample of each latent vector; `reconstruction` and `kl` are its parts.
    """

    kind = "vae"
    networks = ("encoder", "decoder")
    metrics = (
        Metric("loss", "lower", ".2f"),
        Metric("elbo", "higher", ".2f"),
        Metric("reconstruction", "lower", ".2f"),
        Metric("kl", None, ".2f"),
        *JUDGED[:3],
    )
    monitor = "val/elbo"
    replayable = True
    mean_and_std = (0.0, 1.0)
    predicts = "pictures"

    def __init__(
        self,
        latent_size: Positive = 32,
        beta: NonNegativeFloat = 1.0,
        beta_warmup_steps: NonNegative = 0,
        binarize: bool = True,
        judge: str | None = None,
        eval_every: Positive = 1,
    ) -> None:
        self.latent_size = latent_size
        self.beta = beta
        self.beta_warmup_steps = beta_warmup_steps
        self.binarize = binarize
        self.judge_from = judge
        self.eval_every = eval_every

    def input_shapes(self, data: Description) -> dict[str, tuple[int, ...]]:
        known = {"encoder": data.input_shape} if data.input_shape else {}
        return {**known, "decoder": (self.latent_size,)}

    def faults(self, graphs: Mapping[str, Graph], loss: Loss | None, data: Description) -> list[Fault]:
        statistics = f"a mean and a variance for each of {self.latent_size} latent values"
        faults = output_faults(
            graphs,
            encoder=((2 * self.latent_size,), statistics),
            decoder=(data.input_shape, "a logit for each pixel"),
        )
        if loss and loss.kind != "bce_with_logits":
            faults.append(Fault("loss.name", f"{loss.kind} is not the loss of Bernoulli pixels, give bce_with_logits"))
        return faults

    def build(self, graphs: Mapping[str, Sequential], loss: Loss) -> None:
        super().build(graphs, loss)
        self.whole = fuse(Variational(graphs["encoder"], graphs["decoder"]))

    def train_step(self, batches: Sequence[Batch], step: Step, sums: Sums) -> None:
        """Forward, bound and backward of each batch, then a step of both optimizers."""
        parts = [self.trained[name] for name in self.networks]
        for part in parts:
            ops.clear(part.graph.flat.grad)
        beta = self.variant(step.index)
        bound = self._bound(beta)
        for batch, share in zip(batches, shares(batches, step), strict=True):
            x = batch.x
            if self.binarize:
                x = (torch.rand(x.shape, generator=step.mode.generator, dtype=x.dtype, device=x.device) < x).to(x.dtype)
            y, cache = self.whole.forward(x, step.mode)
            loss, loss_cache = bound.forward(y, x.flatten(0, -2))
            self.whole.backward(bound.backward(loss_cache).mul_(share), cache, need_dx=False)
            self._add(sums, loss, beta, y)
        update(parts, step, sums.total("loss"))

    def variant(self, index: int) -> float:
        """The weight of the divergence in a step, which grows during the warm-up."""
        return self.beta * min(1.0, (index + 1) / self.beta_warmup_steps) if self.beta_warmup_steps else self.beta

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        """Add a batch's bound to the sums; keeps the judge's features of the pictures."""
        x = batch.x
        if self.binarize:
            x = (fixed_noise(torch.rand, x, batch.first, BINARIZED) < x).to(x.dtype)
        y, _ = self.whole.forward(x, EVALUATION, self.latent(batch.first, len(batch)))
        self._add(sums, self._bound(self.beta).forward(y, x.flatten(0, -2))[0], self.beta, y)
        return self.judged_features(batch.x)

    def predict(self, x: Tensor) -> Tensor:
        """The mean of each pixel in the reconstruction of x [C, *S, N], from the mean of its latent vector."""
        h, _ = self.graphs["encoder"].forward(x, EVALUATION)
        return self.draw(h[: self.latent_size].contiguous())

    def draw(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        decoded, _ = self.graphs["decoder"].forward(z, EVALUATION)
        return logistic(decoded)

    def loss_check(self, name: str, data: Description, count: int) -> tuple[Graph, Loss, Tensor]:
        generator = torch.Generator().manual_seed(0)
        target = torch.rand((*self.graphs["decoder"].output_shape((self.latent_size,)), count), generator=generator)
        target = target.to(self.graphs[name].flat.data.device, torch.float64)
        if name == "decoder":
            return self.graphs["decoder"], self.loss, target
        return self.whole, self._bound(self.beta), target.flatten(0, -2)

    def learnt(self, index: int) -> tuple[str, float]:
        return "loss", 1e-3 * math.prod(self.graphs["encoder"].input_shape)

    def _bound(self, beta: float) -> Loss:
        """The bound as the loss of both networks; watched if the configured loss is."""
        bound = NegativeELBO(beta)
        return watch_loss(bound, self.loss.report) if isinstance(self.loss, WatchedLoss) else bound

    def _add(self, sums: Sums, loss: Tensor, beta: float, y: Tensor) -> None:
        count = y.shape[-1]
        divergence = kl_divergence(y[-2 * self.latent_size :]).sum()
        reconstruction = loss * count - beta * divergence
        sums.add("loss", loss * count, count)
        sums.add("elbo", -reconstruction - divergence, count)
        sums.add("reconstruction", reconstruction, count)
        sums.add("kl", divergence, count)

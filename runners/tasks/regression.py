"""Regression: a network gives values, such as a picture or a number, and a loss compares them with targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cnn import Graph, Sequential, ops
from cnn.arguments import NonNegativeFloat
from cnn.faults import ConfigError, Fault
from cnn.graphs.fusion import fuse
from cnn.layers.activation import logistic
from cnn.losses import Loss, kinds_taking
from runners.data.batches import Batch
from runners.data.dataset import Dataset, Description
from runners.tasks.measures import SSIM_WINDOW, psnr, ssim
from runners.tasks.noise import fixed_noise
from runners.tasks.sums import Sums
from runners.tasks.task import EVALUATION, Metric, Step, Task, shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED = ("val", "test")


class Regression(Task):
    """Training steps and evaluation of a network whose outputs are compared with values.

    `target`: `input`, the picture itself, as for an autoencoder; or `data`, what the data come with: numbers, vectors
    or arrays of any shape. Classes are taken as numbers. `noise`: the standard deviation of Gaussian noise that is
    added to the network's input in training, new in each step, and in evaluation, where each example has its
    own, which never changes; the targets have none. Pixels are in [0, 1].

    Pictures are measured by PSNR and SSIM; with noise, `psnr_gain` is how much PSNR is higher than the noisy input's.
    """

    kind = "regression"
    metrics = (
        Metric("loss", "lower"),
        Metric("absolute_error", "lower"),
        Metric("psnr", "higher", ".2f", splits=MEASURED, optional=True),
        Metric("ssim", "higher", ".4f", (-1.0, 1.0), splits=MEASURED, optional=True),
        Metric("psnr_gain", "higher", ".2f", splits=MEASURED, optional=True),
    )
    mean_and_std = (0.0, 1.0)
    replayable = True

    def __init__(self, target: Literal["input", "data"] = "data", noise: NonNegativeFloat = 0.0) -> None:
        self.target = target
        self.predicts = "pictures" if target == "input" else "values"
        self.noise = noise

    def faults(self, graphs: Mapping[str, Graph], loss: Loss | None, data: Description) -> list[Fault]:
        faults: list[Fault] = []
        wanted = data.input_shape if self.target == "input" else data.target_shape
        network = graphs.get("model")
        given = network.output_shape(network.input_shape) if network else None
        if loss and loss.targets != "values":
            faults.append(Fault("loss.name", f"{loss.kind} doesn't compare values, give {kinds_taking('values')}"))
        elif loss and given:
            try:
                loss.check_classes(given[0])
            except ConfigError as error:
                faults += error.inside("loss").faults
        if network and given and wanted is not None and given != (wanted or (1,)):
            last = list(network.layers)[-1]
            needed = f"but the targets are {list(wanted or (1,))}"
            faults.append(Fault("model.layers", f"the last, {last}, gives {list(given)}, {needed}"))
        low, high = data.target_range or (0.0, 0.0)
        if loss and loss.contains == "sigmoid" and self.target == "data" and not 0 <= low <= high <= 1:
            problem = (
                f"{loss.kind} takes targets in [0, 1], but the data have {low:g} to {high:g}: give l1, l2 or huber"
            )
            faults.append(Fault("loss.name", problem))
        return faults

    def build(self, graphs: Mapping[str, Sequential], loss: Loss) -> None:
        super().build(graphs, loss)
        self.scored = fuse(graphs["model"].without_last(loss.contains))

    def train_step(self, batches: Sequence[Batch], step: Step, sums: Sums) -> None:
        """Forward, loss and backward of each batch, then one step of the optimizer."""
        trained = self.trained["model"]
        ops.clear(trained.graph.flat.grad)
        for batch, share in zip(batches, shares(batches, step), strict=True):
            x = batch.x
            if self.noise:
                noise = torch.randn(x.shape, generator=step.mode.generator, dtype=x.dtype, device=x.device)
                x = x + self.noise * noise
            y, cache = self.scored.forward(x, step.mode)
            target = self._target(batch, y)
            loss, loss_cache = self.loss.forward(y, target)
            self.scored.backward(self.loss.backward(loss_cache).mul_(share), cache, need_dx=False)
            self._add(sums, loss, self._values(y), target)
        trained.update(step, sums.total("loss"))

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        """Add a batch's metrics to the sums; keeps nothing of the outputs, which may be large."""
        x = self._noisy(batch)
        y, _ = self.scored.forward(x, EVALUATION)
        target = self._target(batch, y)
        values = self._values(y)
        self._add(sums, self.loss.forward(y, target)[0], values, target)
        if self.predicts == "pictures":
            count, found = len(batch), psnr(values, target)
            sums.add("psnr", found.sum(), count)
            if self.noise:
                sums.add("psnr_gain", (found - psnr(x, target)).sum(), count)
            if len(values.shape) == 4 and min(values.shape[1:3]) >= SSIM_WINDOW:
                sums.add("ssim", ssim(values, target).sum(), count)
        return torch.empty(0, len(batch), device=batch.x.device)

    def predict(self, x: Tensor) -> Tensor:
        """The network's values for inputs [C, *S, N]; of a loss on logits their sigmoid."""
        y, _ = self.scored.forward(x, EVALUATION)
        return self._values(y)

    def figures(self, dataset: Dataset, outputs: Tensor) -> dict[str, Figure]:
        """Inputs above the network's outputs for the first test examples, if these are pictures."""
        if self.predicts != "pictures" or len(dataset.input_shape) != 3:
            return {}
        from runners.tasks import figures  # importing matplotlib takes half a second

        images = dataset.test.images[: figures.MAX_COLUMNS].movedim(0, -1)
        like = self.graphs["model"].flat.data
        clean = images.to(like.device, like.dtype) / 255
        x = self._noisy(Batch(clean, torch.empty(0)))
        rows = {"input": x, "output": self.predict(x)} | ({"clean": clean} if self.noise else {})
        return {"outputs": figures.rows_of_pictures(rows)}

    def loss_check(self, name: str, data: Description, count: int) -> tuple[Graph, Loss, Tensor]:
        graph = self.graphs[name].without_last(self.loss.contains)
        shape = (*graph.output_shape(graph.input_shape), count)
        target = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return graph, self.loss, target.to(self.graphs[name].flat.data.device)

    def _noisy(self, batch: Batch) -> Tensor:
        """The inputs of an evaluation."""
        x = batch.x
        return x + self.noise * fixed_noise(torch.randn, x, batch.first) if self.noise else x

    def _target(self, batch: Batch, y: Tensor) -> Tensor:
        """The target of outputs y, in their shape."""
        return batch.x if self.target == "input" else batch.targets.to(y.dtype).reshape(y.shape)

    def _values(self, y: Tensor) -> Tensor:
        return logistic(y) if self.loss.contains == "sigmoid" else y

    def _add(self, sums: Sums, loss: Tensor, values: Tensor, target: Tensor) -> None:
        count = values.shape[-1]
        sums.add("loss", loss * count, count)
        sums.add("absolute_error", (values - target).abs().mean() * count, count)

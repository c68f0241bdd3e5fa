"""A task of one's own, in one file: tell how bright a picture is, by the squared distance from the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cnn import Graph, Sequential
from cnn.arguments import PositiveFloat
from cnn.faults import Fault
from cnn.graphs.fusion import fuse
from cnn.losses import Loss
from runners.data.batches import Batch
from runners.data.dataset import Dataset, Description
from runners.tasks.sums import Sums
from runners.tasks.task import EVALUATION, Metric, Step, Task


class Brightness(Task):
    """The mean of a picture's values, times `scale`. The targets are made from the pictures."""

    kind = "brightness"
    metrics = (
        Metric("loss", "lower"),
        Metric("error", "lower", ".3f"),
        Metric("spread", splits=("val",), optional=True),
    )
    monitor = "val/error"

    def __init__(self, scale: PositiveFloat = 1.0) -> None:
        self.scale = scale
        self.seen = 0

    def faults(self, graphs: Mapping[str, Graph], loss: Loss | None, data: Description) -> list[Fault]:
        faults = []
        if loss and loss.targets != "values":
            faults.append(Fault("loss.name", f"{loss.kind} compares with classes, give l1, l2 or huber"))
        if "model" in graphs and data.input_shape and graphs["model"].output_shape(data.input_shape) != (1,):
            faults.append(Fault("model.layers", "the last has to give one number, [1]"))
        return faults

    def build(self, graphs: Mapping[str, Sequential], loss: Loss) -> None:
        super().build(graphs, loss)
        self.fused = fuse(graphs["model"])

    def train_step(self, batches: Sequence[Batch], step: Step, sums: Sums) -> None:
        self.trained["model"].graph.flat.grad.zero_()
        count = sum(map(len, batches))
        for batch in batches:
            y, cache = self.fused.forward(batch.x, step.mode)
            value, loss_cache = self.loss.forward(y, self._target(batch.x))
            self.fused.backward(self.loss.backward(loss_cache) * (len(batch) / count), cache, need_dx=False)
            self._add(sums, batch, y, value)
            self.seen += len(batch)
        self.trained["model"].update(step, sums.total("loss"))

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        y = self.predict(batch.x)
        self._add(sums, batch, y, self.loss.forward(y, self._target(batch.x))[0])
        return y

    def set_metrics(self, outputs: Tensor, epoch: int | None) -> dict[str, float]:
        return {"spread": float(outputs.std())} if epoch is None or epoch % 2 == 0 else {}

    def predict(self, x: Tensor) -> Tensor:
        return self.fused.forward(x, EVALUATION)[0]

    def findings(self, targets: Tensor, class_names: Sequence[str], outputs: Tensor) -> tuple[dict[str, Any], str]:
        return {"brightest": float(outputs.max())}, f"the brightest picture: {outputs.max():.2f}"

    def figures(self, dataset: Dataset, outputs: Tensor) -> dict[str, Any]:
        from matplotlib.figure import Figure

        figure = Figure()
        figure.subplots().hist(outputs.flatten().numpy())
        return {"brightness": figure}

    def state(self) -> dict[str, Any]:
        return {"pictures": self.seen}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.seen = state["pictures"]

    def _target(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(0, -2).mean(0, keepdim=True)

    def _add(self, sums: Sums, batch: Batch, y: Tensor, value: Tensor) -> None:
        sums.add("loss", value * len(batch), len(batch))
        sums.add("error", (y - self._target(batch.x)).abs().sum(), torch.numel(y))

"""Classification: a network gives one number per class, and the class with the largest number is the prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cnn import Graph, Sequential, ops
from cnn.faults import ConfigError, Fault
from cnn.graphs.fusion import fuse
from cnn.graphs.sequential import origins
from cnn.layers.activation import Softmax
from cnn.layers.conv import Conv
from cnn.losses import Loss, kinds_taking, minus_log_sigmoid
from cnn.text import columns, printable
from runners.data.batches import Batch
from runners.data.dataset import Dataset, Description
from runners.tasks.sums import Sums
from runners.tasks.task import EVALUATION, Metric, Step, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CLASSES_DRAWN = 40
NEGLIGIBLE = 1e-9
"""Keeps classes in order whose outputs are all clipped to zero."""


class Classification(Task):
    """Training steps and evaluation of a classifier.

    Some losses take logits. If a network ends in the activation that its loss already contains, that layer is left out
    in training and evaluation; where that isn't possible, a warning says so. Other losses compare the outputs with
    one-hot targets.
    """

    kind = "classification"
    metrics = (Metric("loss", "lower"), Metric("accuracy", "higher", ".2%", (0.0, 1.0)))
    monitor = "val/accuracy"
    replayable = True
    predicts = "classes"

    def faults(self, graphs: Mapping[str, Graph], loss: Loss | None, data: Description) -> list[Fault]:
        faults: list[Fault] = []
        if loss and loss.targets == "real":
            return [Fault("loss.name", f"{loss.kind} judges a generator, give {kinds_taking('classes', 'values')}")]
        if loss and data.classes:
            try:
                loss.check_classes(data.classes)
            except ConfigError as error:
                faults += error.inside("loss").faults
        if data.target_shape is not None and not data.classes:
            allowed = "choose a task for values, or give integers as targets"
            faults.append(
                Fault("task.name", f"{self.kind} needs classes, but the data's targets are values: {allowed}")
            )
        network = graphs.get("model")
        if network and data.classes and data.input_shape:
            given = network.output_shape(data.input_shape)
            if given != (data.classes,):
                last = list(network.layers)[-1]
                wanted = f"but the data have {data.classes} classes: give [{data.classes}]"
                faults.append(Fault("model.layers", f"the last, {last}, gives {list(given)}, {wanted}"))
        return faults

    def warnings(self) -> list[str]:
        """Activations at the end whose output a loss takes as logits, and squashes again."""
        contained = self.loss.contains
        if contained is None:
            return []
        squashing = {contained, "softmax", "sigmoid", *(["log_softmax"] if contained == "sigmoid" else [])}
        return [
            f"model.{layer.place or 'layers'}: its outputs are the logits of the loss {self.loss.kind}, which applies "
            f"{contained} to them: leave this {layer.kind} out"
            for layer in origins(self.scored)
            if layer.kind in squashing
        ]

    def build(self, graphs: Mapping[str, Sequential], loss: Loss) -> None:
        super().build(graphs, loss)
        self.scored = fuse(graphs["model"].without_last(loss.contains))

    def train_step(self, batches: Sequence[Batch], step: Step, sums: Sums) -> None:
        """Forward, loss and backward of each batch, then one step of the optimizer.

        As losses are means, each batch's gradient is weighted by its share of the whole. Where the whole has no weight
        there is no mean, and the step has no gradient.
        """
        trained = self.trained["model"]
        ops.clear(trained.graph.flat.grad)
        shares = [self.loss.share(batch.targets) for batch in batches]
        whole = _whole(shares, step, batches[0].x.device)
        for batch, share in zip(batches, shares, strict=True):
            y, cache = self.scored.forward(batch.x, step.mode)
            loss, loss_cache = self.loss.forward(y, self._target(batch.targets, y))
            dy = self.loss.backward(loss_cache)
            if whole is not None:
                dy *= _divisor(share) / whole
            self.scored.backward(dy, cache, need_dx=False)
            self._add(sums, batch, loss, share, y)
        trained.update(step, sums.total("loss"))

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        """Add a batch's loss and correct predictions to the sums; returns the predicted classes [N]."""
        y, _ = self.scored.forward(batch.x, EVALUATION)
        loss, _ = self.loss.forward(y, self._target(batch.targets, y))
        self._add(sums, batch, loss, self.loss.share(batch.targets), y)
        return ops.argmax(y)

    def predict(self, x: Tensor) -> Tensor:
        """The probability of each class, [K, N], in the order of the network's outputs.

        A network that was trained on logits gives their softmax, or their sigmoid scaled to sum to 1, as its loss
        does. The outputs of other networks estimate one-hot targets, whose mean is the probability: they are clipped
        at zero and scaled to sum to 1.
        """
        outputs, _ = self.scored.forward(x, EVALUATION)
        if self.loss.contains == "sigmoid":  # the logarithm keeps values near 0 distinct
            outputs = -minus_log_sigmoid(outputs)
        shares, _ = Softmax().forward(outputs, EVALUATION)
        if self.loss.contains:
            return shares
        positive = outputs.clamp(min=0) + NEGLIGIBLE * shares
        return positive / positive.sum(0)

    def findings(self, targets: Tensor, class_names: Sequence[str], outputs: Tensor) -> tuple[dict[str, Any], str]:
        """The confusion matrix, true class [row] by predicted class [column], and a table of the classes."""
        matrix = confusion(targets, outputs, len(class_names))
        return {"class_names": list(class_names), "confusion": matrix.tolist()}, _table(matrix, class_names)

    def figures(self, dataset: Dataset, outputs: Tensor) -> dict[str, Figure]:
        """The confusion matrix; for images also mistakes, and the filters of the first convolution."""
        from runners.tasks import figures  # importing matplotlib takes half a second

        count = len(dataset.class_names)
        matrix = confusion(dataset.test.targets, outputs, count)
        convolutions = [layer for _, layer in self.graphs["model"].named_layers() if isinstance(layer, Conv)]
        drawn = {
            "confusion": figures.confusion(matrix, dataset.class_names) if count <= MAX_CLASSES_DRAWN else None,
            "mistakes": figures.mistakes(dataset, outputs),
            "filters": figures.filters(convolutions[0].weight.data) if convolutions else None,
        }
        return {name: figure for name, figure in drawn.items() if figure}

    def loss_check(self, name: str, data: Description, count: int) -> tuple[Graph, Loss, Tensor]:
        """Uses only classes to which the loss gives a weight: others have no gradient."""
        assert data.classes
        counting = [c for c in range(data.classes) if self.loss.share(torch.tensor([c])) > 0]
        device = self.graphs[name].flat.data.device
        targets = torch.tensor([counting[(7 * n + 3) % len(counting)] for n in range(count)], device=device)
        like = torch.empty(data.classes, count, dtype=torch.float64, device=device)
        return self.graphs[name].without_last(self.loss.contains), self.loss, self._target(targets, like)

    def _add(self, sums: Sums, batch: Batch, loss: Tensor, share: Tensor | int, y: Tensor) -> None:
        sums.add("loss", loss * _divisor(share), share)
        sums.add("accuracy", ops.count_hits(y, batch.targets), len(batch))

    def _target(self, classes: Tensor, y: Tensor) -> Tensor:
        return classes if self.loss.targets == "classes" else one_hot(classes, like=y)


def _whole(shares: Sequence[Tensor | int], step: Step, device: torch.device) -> Tensor | int | None:
    """The sum of the shares of all batches and processes; None if there is only one batch, and it surely has a mean.

    If no class in these batches has a weight, the sum is 0, and infinity replaces it.
    """
    reduce = step.mode.reduce
    if len(shares) == 1 and reduce is None and not isinstance(shares[0], Tensor):
        return None
    whole = sum(shares)
    if reduce is not None:
        whole = torch.as_tensor(whole, dtype=torch.float64, device=device).clone()
        reduce(whole)
    return whole.masked_fill(whole == 0, torch.inf) if isinstance(whole, Tensor) else whole


def _divisor(share: Tensor | int) -> Tensor | int:
    """What a loss divides a batch's sum by: its share, or 1 if that is 0."""
    return share.masked_fill(share == 0, 1) if isinstance(share, Tensor) else share


def one_hot(classes: Tensor, like: Tensor) -> Tensor:
    """Classes [N] as columns [K, N] with a 1 at the class, in the shape and dtype of `like`."""
    return torch.zeros_like(like).scatter_(0, classes[None], 1)


def confusion(targets: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How many examples of each true class [row] were predicted as each class [column]."""
    return torch.bincount(targets * classes + predicted, minlength=classes**2).view(classes, classes)


def _table(matrix: Tensor, class_names: Sequence[str]) -> str:
    """A line per class: its examples, its accuracy, and the class that it is most often mistaken for."""
    names = [printable(name) for name in class_names]
    rows = [("class", "examples", "accuracy", "most often taken for")]
    for index, name in enumerate(names):
        row = matrix[index].clone()
        examples, right = int(row.sum()), int(row[index])
        row[index] = 0
        wrong = f"{names[int(row.argmax())]} ({int(row.max())})" if row.any() else ""
        rows.append((name, f"{examples:,}", f"{right / examples:.2%}" if examples else "-", wrong))
    return "\n".join(columns(rows, ">>><"))

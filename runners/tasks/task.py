"""The contract of a task: what is trained, what a step and an evaluation do, and which metrics are reported.

A task is one file. The loop, checkpoints, resume, sweeps, figures and reports only use this interface, and know no
network, loss or metric. A task takes values and networks, never a config or a file, so that it can also be built from
a checkpoint.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from cnn import Graph, Mode, Sequential, ops
from cnn.clipping import clip_grad_norm
from cnn.faults import Fault
from cnn.losses import L2, Loss
from cnn.optimizers import Optimizer
from cnn.schedules import RunLength, Schedule
from runners.data.batches import Batch
from runners.data.dataset import Dataset, Description
from runners.tasks.sums import Number, Sums
from runners.tasks.watching import Report, finite, watch, watch_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
Answer = Literal["classes", "values", "pictures", "samples"]
EVALUATION = Mode(train=False, keep_cache=False)


@dataclass(frozen=True)
class Metric:
    """A number that a task reports: its format, whether higher or lower is better, and the splits it is measured on.

    An optional metric may be missing in an epoch.
    """

    name: str
    better: Literal["higher", "lower"] | None = None
    format: str = ".4f"
    range: tuple[float, float] = (-float("inf"), float("inf"))
    splits: tuple[str, ...] = ("train", "val", "test")
    optional: bool = False

    def show(self, value: float) -> str:
        """The value as it is printed; large values have four digits."""
        return f"{value:{self.format}}" if abs(value) < 1e6 else f"{value:.4g}"


@dataclass(frozen=True)
class Step:
    """One optimizer step: its index in the run, from 0, the run's length, and the mode of its forward passes.

    `max_norm`: a longer gradient is clipped to this norm. `mode.reduce` sums a tensor over all processes.
    """

    index: int
    length: RunLength
    mode: Mode
    max_norm: float | None = None


@dataclass
class Trained:
    """A network with the optimizer that trains it and the schedule of its learning rate."""

    graph: Sequential
    optimizer: Optimizer
    schedule: Schedule

    def lr(self, index: int, length: RunLength) -> float:
        """The learning rate of a step."""
        return self.schedule(self.optimizer.lr, index, length)

    def advance(self, step: Step) -> None:
        """Count a step of the optimizer, with the learning rate of a step of the run."""
        self.optimizer.advance(self.graph.flat.trained, self.lr(step.index, step.length))

    def update(self, step: Step, *losses: Number) -> None:
        """Update this network alone, as the function `update` does."""
        update([self], step, *losses)


def update(parts: Sequence[Trained], step: Step, *losses: Number) -> None:
    """Sum the gradients of networks over all processes, clip each, and take a step of each optimizer.

    Frozen parameters are left out. Raises NotFinite, without changing weights, if a gradient or one of the losses is
    infinite or NaN.
    """
    flats, reduce = [part.graph.flat.trained for part in parts], step.mode.reduce
    checked = [*(flat.grad for flat in flats), *(torch.as_tensor(loss) for loss in losses)]
    if reduce is None:
        for each in checked:
            ops.require_finite(each)
    else:  # losses differ between processes, but either all stop or none
        for flat in flats:
            reduce(flat.grad)
        faults = torch.tensor(float(not finite(*checked)), dtype=torch.float64, device=flats[0].grad.device)
        reduce(faults)
        if faults:
            raise ops.NotFinite
    for part, flat in zip(parts, flats, strict=True):
        if step.max_norm is not None:
            clip_grad_norm(flat.grad, step.max_norm)
        ops.live(part.advance, step)
        part.optimizer.update(flat)


def shares(batches: Sequence[Batch], step: Step) -> list[float]:
    """Each batch's share of the examples in a step, over all processes; gradients of means are weighted by it."""
    whole = float(sum(map(len, batches)))
    if step.mode.reduce is not None:
        total = torch.tensor(whole, dtype=torch.float64, device=batches[0].x.device)
        step.mode.reduce(total)
        whole = float(total)
    return [len(batch) / whole for batch in batches]


class Task:
    """The base of every task. The constructor takes the arguments of the config section `task`.

    `networks`: the names of the networks, each a section of the config. `metrics`: in display order; they determine the
    columns of metrics.csv. `monitor`: the column that determines the best epoch.
    """

    kind: ClassVar[str]
    networks: ClassVar[tuple[str, ...]] = ("model",)
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("loss", "lower"),)
    monitor: ClassVar[str] = "val/loss"
    mean_and_std: ClassVar[tuple[float, float] | None] = None
    """What pixels, scaled to [0, 1], are normalised with; None: the mean and deviation of the training images."""
    replayable: ClassVar[bool] = False
    """Whether a step may be recorded and replayed: it changes nothing but networks, optimizers and tensors, and what it
    does depends on nothing but the batches' shapes and `variant`."""
    predicts: Answer = "values"
    """What `predict` gives: a probability for each class of the data, values of any shape, pictures made of pictures,
    or pictures made of noise; the last two with values in [0, 1].
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Raise ValueError for a monitor that is no column or says not what is better, and for unusable names."""
        super().__init_subclass__(**options)
        if "replayable" not in vars(cls) and {"train_step", "evaluate", "variant"} & vars(cls).keys():
            cls.replayable = False  # what a derived class does may depend on anything
        if cls.monitor not in cls.columns():
            raise ValueError(f"{cls.__name__}.monitor is {cls.monitor!r}, its columns are {', '.join(cls.columns())}")
        if cls.metric(cls.monitor).better is None:
            raise ValueError(f"{cls.__name__}: the monitored metric has to say whether higher or lower is better")
        for name in (*cls.networks, *(metric.name for metric in cls.metrics)):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,59}", name):
                raise ValueError(f"{cls.__name__}: {name!r} can't be a name, which is made of letters, digits and _")

    graphs: Mapping[str, Sequential]
    trained: Mapping[str, Trained]
    loss: Loss

    def input_shapes(self, data: Description) -> dict[str, tuple[int, ...]]:
        """The input shape of each network, as far as these data determine it; by default that of an example."""
        if data.input_shape is None or (self.predicts == "classes" and not data.classes):
            return {}
        return dict.fromkeys(self.networks, data.input_shape)

    def faults(self, graphs: Mapping[str, Graph], loss: Loss | None, data: Description) -> list[Fault]:
        """Mismatches between the networks (with known shapes, but nothing allocated), the loss and the data.

        Called before the data are read and again after. Anything unknown, or already faulty, is missing.
        """
        return []

    def warnings(self) -> list[str]:
        """What is probably a mistake in networks and loss, although it can be trained; reported as training starts."""
        return []

    def build(self, graphs: Mapping[str, Sequential], loss: Loss) -> None:
        """Set the networks and the loss. Called again on a copy with watched layers."""
        self.graphs = graphs
        self.loss = loss

    def train_with(self, rules: Mapping[str, tuple[Optimizer, Schedule]]) -> None:
        """Set the optimizer and the schedule of each network. Only needed for training."""
        self.trained = {name: Trained(self.graphs[name], *rules[name]) for name in self.networks}

    def train_step(self, batches: Sequence[Batch], step: Step, sums: Sums) -> None:
        """One step of one network on a group of batches, as if they were one; adds to the sums of the epoch.

        Raises NotFinite, as `Trained.update` does.
        """
        raise NotImplementedError

    def variant(self, index: int) -> Hashable:
        """The kind of a step, such as a generator's or a critic's: steps of a kind make the same calls."""
        return None

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        """Add a batch's metrics to the sums; returns the outputs to keep for each example, [..., N]."""
        raise NotImplementedError

    def set_metrics(self, outputs: Tensor, epoch: int | None) -> dict[str, float]:
        """Metrics of all examples that aren't means over examples. An optional one may be missing after an epoch.

        `epoch`: the epoch that ends with this validation; None in a test and in the last epoch.
        """
        return {}

    def predict(self, x: Tensor) -> Tensor:
        """The task's prediction for inputs [C, *S, N]."""
        raise NotImplementedError

    @property
    def uses_classes(self) -> bool:
        """Whether targets are classes, and have to be numbered as the run's."""
        return self.predicts == "classes"

    def facts(self) -> dict[str, str]:
        """What a run's metrics depend on besides its config and data, by name, for its summary."""
        return {}

    def findings(self, targets: Tensor, class_names: Sequence[str], outputs: Tensor) -> tuple[dict[str, Any], str]:
        """What an evaluation reports in addition to the metrics, for JSON and as text."""
        return {}, ""

    def figures(self, dataset: Dataset, outputs: Tensor) -> dict[str, Figure]:
        """Figures of the test results, by name."""
        return {}

    def snapshot(self) -> Array | None:
        """A picture of what the networks do now, [H, W] or [H, W, 3] in bytes, drawn after each epoch."""
        return None

    def pictures(self) -> dict[str, list[Array]]:
        """Pictures of what the best weights do, by name: one frame is a PNG, several are a GIF."""
        return {}

    def loss_check(self, name: str, data: Description, count: int) -> tuple[Graph, Loss, Tensor]:
        """What `debug=gradcheck` checks: what feeds the loss from a network's input on, the loss, `count` targets.

        By default, the whole network with the squared distance from random targets.
        """
        graph = self.graphs[name]
        shape = (*graph.output_shape(graph.input_shape), count)
        targets = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return graph, L2(), targets.to(graph.flat.data.device)

    def learnt(self, index: int) -> tuple[str, float]:
        """The metric of a step and the value below which `debug=overfit` takes one batch for learnt."""
        return "loss", 1e-3

    def state(self) -> dict[str, Any]:
        """State of the task beyond networks, optimizers and schedules: numbers and arrays."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state. Raises ValueError if it doesn't belong to this task."""
        if state.keys() != self.state().keys():
            raise ValueError(f"a saved state with {sorted(state)} doesn't match the task {self.kind}")

    @classmethod
    def metric(cls, column: str) -> Metric:
        """The metric of a column of metrics.csv."""
        return next(metric for metric in cls.metrics if metric.name == column.partition("/")[2])

    @classmethod
    def columns(cls) -> list[str]:
        """The columns of metrics.csv for the metrics."""
        return [
            f"{split}/{metric.name}" for split in ("train", "val") for metric in cls.metrics if split in metric.splits
        ]

    @classmethod
    def monitored_first(cls) -> list[Metric]:
        """The metrics, starting with the monitored one."""
        first = cls.metric(cls.monitor)
        return [first, *(metric for metric in cls.metrics if metric is not first)]

    @classmethod
    def rate_columns(cls) -> dict[str, str]:
        """The column of each network's learning rate: `lr`, or `lr/NETWORK` if there are several networks."""
        return {name: "lr" if len(cls.networks) == 1 else f"lr/{name}" for name in cls.networks}

    def learning_rates(self, index: int, length: RunLength) -> dict[str, float]:
        """The learning rates of a step, by column."""
        return {column: self.trained[name].lr(index, length) for name, column in self.rate_columns().items()}

    def watched(self, report: Report) -> Task:
        """A copy with the same parameters that reports values that aren't finite, layer by layer."""
        found = copy.copy(self)
        prefix = {name: "" if len(self.networks) == 1 else name for name in self.networks}
        graphs = {name: watch(graph, report, prefix[name]) for name, graph in self.graphs.items()}
        if hasattr(self, "trained"):
            found.trained = {name: replace(part, graph=graphs[name]) for name, part in self.trained.items()}
        found.build(graphs, watch_loss(self.loss, report))
        return found

"""The contract of a task: what is trained, what one step and one evaluation are, and which numbers say how it goes.

A task is one file. The loop, checkpoints, resume, sweeps, figures and reports ask it and know no network, loss or
metric themselves. It takes values and networks, never a config or a file, so that a checkpoint can make it too.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from cnn import Graph, Mode, Sequential
from cnn.faults import Fault
from cnn.losses import L2, Loss
from cnn.optimizers import Optimizer, clip_grad_norm
from cnn.schedules import RunLength, Schedule
from runners.data.batches import Batch
from runners.data.dataset import Dataset, Description
from runners.tasks.divergence import NotFinite, Report, WatchedLoss, finite, watch
from runners.tasks.sums import Number, Sums

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATION = Mode(train=False, keep_cache=False)


@dataclass(frozen=True)
class Metric:
    """A number that a task reports: how it is shown, whether higher or lower is better, and where it is measured.

    An optional one may be missing in an epoch.
    """

    name: str
    better: Literal["higher", "lower"] | None = None
    format: str = ".4f"
    range: tuple[float, float] = (-float("inf"), float("inf"))
    splits: tuple[str, ...] = ("train", "val", "test")
    optional: bool = False

    def show(self, value: float) -> str:
        """The value as it is printed; large ones in four digits."""
        return f"{value:{self.format}}" if abs(value) < 1e6 else f"{value:.4g}"


@dataclass(frozen=True)
class Step:
    """One optimizer step: its index in the run, from 0, how long the run is, and how its forward passes run.

    `max_norm`: the length to which a longer gradient is clipped. `mode.reduce` adds up a tensor over all processes.
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

    def update(self, step: Step, *losses: Number) -> None:
        """Add up the gradient over all processes, clip it, and take a step of the optimizer.

        Raises NotFinite, and changes no weight, where the gradient or one of the losses is infinite or not a number.
        """
        flat, reduce = self.graph.flat, step.mode.reduce
        if reduce is not None:
            reduce(flat.grad)
        sound = finite(flat.grad, *(torch.as_tensor(loss) for loss in losses))
        if reduce is not None:  # losses differ between processes, and all of them stop or none
            faults = torch.tensor(float(not sound), dtype=torch.float64, device=flat.grad.device)
            reduce(faults)
            sound = not faults
        if not sound:
            raise NotFinite
        if step.max_norm is not None:
            clip_grad_norm(flat.grad, step.max_norm)
        self.optimizer.step(flat, self.lr(step.index, step.length))


class Task:
    """The base of every task. The constructor takes the arguments a config may give under `task`.

    `networks`: the names of what is trained, each a section of the config. `metrics`: in the order in which they are
    shown, the columns of metrics.csv. `monitor`: the column that decides which epoch is the best.
    """

    kind: ClassVar[str]
    networks: ClassVar[tuple[str, ...]] = ("model",)
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("loss", "lower"),)
    monitor: ClassVar[str] = "val/loss"
    names_classes: ClassVar[bool] = False
    """Whether `predict` gives a probability for each class of the data."""

    graphs: Mapping[str, Sequential]
    trained: Mapping[str, Trained]
    loss: Loss

    def input_shapes(self, example_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The input's shape of each network, for examples [C, *S] of this shape."""
        return dict.fromkeys(self.networks, example_shape)

    def faults(self, graphs: Mapping[str, Graph], loss: Loss | None, data: Description) -> list[Fault]:
        """Where networks (their shapes known, nothing allocated), loss and data don't fit one another.

        Asked twice, before the data are read and after; what isn't known, or is wrong already, is missing.
        """
        return []

    def build(self, graphs: Mapping[str, Sequential], loss: Loss) -> None:
        """Take the networks and the loss. Called again on a copy whose layers are watched."""
        self.graphs = graphs
        self.loss = loss

    def train_with(self, rules: Mapping[str, tuple[Optimizer, Schedule]]) -> None:
        """Take the optimizer and the schedule of each network; only a task that trains has them."""
        self.trained = {name: Trained(self.graphs[name], *rules[name]) for name in self.networks}

    def train_step(self, batches: Sequence[Batch], step: Step, sums: Sums) -> None:
        """One step of one network on a group of batches, as if these were one; adds to the sums of the epoch.

        Raises NotFinite, as `Trained.update` does.
        """
        raise NotImplementedError

    def variant(self, index: int) -> Hashable:
        """Which kind of step this is, as a generator's or a critic's."""
        return None

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        """Add a batch's metrics to the sums; returns what is kept of each example, [..., N]."""
        raise NotImplementedError

    def set_metrics(self, outputs: Tensor, epoch: int) -> dict[str, float]:
        """Metrics of all examples that are no means over them; one may be missing in an epoch."""
        return {}

    def predict(self, x: Tensor) -> Tensor:
        """What the task makes of inputs [C, *S, N]."""
        raise NotImplementedError

    def findings(self, targets: Tensor, class_names: Sequence[str], outputs: Tensor) -> tuple[dict[str, Any], str]:
        """What an evaluation says beside the metrics: for JSON, and in lines."""
        return {}, ""

    def figures(self, dataset: Dataset, outputs: Tensor) -> dict[str, Figure]:
        """Pictures of the test by name."""
        return {}

    def loss_check(self, name: str, data: Description, count: int) -> tuple[Sequential, Loss, Tensor]:
        """What `debug=gradcheck` checks a network with: the part that a loss sees, the loss, `count` targets.

        Here the whole network, with squared distances from random numbers.
        """
        graph = self.graphs[name]
        shape = (*graph.output_shape(graph.input_shape), count)
        targets = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return graph, L2(), targets.to(graph.flat.data.device)

    def state(self) -> dict[str, Any]:
        """What the next step depends on, beside networks, optimizers and schedules: numbers and arrays."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state. Raises ValueError where it isn't one of this task."""
        if state.keys() != self.state().keys():
            raise ValueError(f"a saved state with {sorted(state)} doesn't fit the task {self.kind}")

    @classmethod
    def metric(cls, column: str) -> Metric:
        """The metric that a column of metrics.csv shows."""
        return next(metric for metric in cls.metrics if metric.name == column.partition("/")[2])

    @classmethod
    def columns(cls) -> list[str]:
        """The columns of metrics.csv that the metrics fill."""
        return [
            f"{split}/{metric.name}" for split in ("train", "val") for metric in cls.metrics if split in metric.splits
        ]

    @classmethod
    def monitored_first(cls) -> list[Metric]:
        """The metrics, the one that decides before the others."""
        first = cls.metric(cls.monitor)
        return [first, *(metric for metric in cls.metrics if metric is not first)]

    @classmethod
    def rate_columns(cls) -> dict[str, str]:
        """The column of each network's learning rate: `lr`, or `lr/NETWORK` where there are several."""
        return {name: "lr" if len(cls.networks) == 1 else f"lr/{name}" for name in cls.networks}

    def learning_rates(self, index: int, length: RunLength) -> dict[str, float]:
        """The learning rates of a step by their columns."""
        return {column: self.trained[name].lr(index, length) for name, column in self.rate_columns().items()}

    def watched(self, report: Report) -> Task:
        """A copy with the same parameters that reports what isn't finite, layer by layer."""
        found = copy.copy(self)
        prefix = {name: "" if len(self.networks) == 1 else name for name in self.networks}
        graphs = {name: watch(graph, report, prefix[name]) for name, graph in self.graphs.items()}
        if hasattr(self, "trained"):
            found.trained = {name: replace(part, graph=graphs[name]) for name, part in self.trained.items()}
        found.build(graphs, WatchedLoss(self.loss, report))
        return found

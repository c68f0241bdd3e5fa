"""A task with two networks that take steps in turn: each tells how bright a picture is, the second from the first."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from torch import Tensor

from cnn import Graph
from cnn.faults import Fault
from cnn.losses import Loss
from runners.data.batches import Batch
from runners.data.dataset import Description
from runners.tasks.sums import Sums
from runners.tasks.task import EVALUATION, Metric, Step, Task


class Pair(Task):
    """The first network maps a picture to four numbers, the second these to one, which is compared with the truth."""

    kind = "pair"
    networks = ("first", "second2")
    metrics = (Metric("loss", "lower"), *(Metric(f"{name}_loss", splits=("train",)) for name in networks))

    def input_shapes(self, data: Description) -> dict[str, tuple[int, ...]]:
        return {"second2": (4,), **({"first": data.input_shape} if data.input_shape else {})}

    def faults(self, graphs: Mapping[str, Graph], loss: Loss | None, data: Description) -> list[Fault]:
        wanted = {"first": (4,), "second2": (1,)}
        return [
            Fault(f"{name}.layers", f"has to give {list(wanted[name])}")
            for name, graph in graphs.items()
            if graph.output_shape(graph.input_shape) != wanted[name]
        ]

    def variant(self, index: int) -> Hashable:
        return self.networks[index % 2]

    def train_step(self, batches: Sequence[Batch], step: Step, sums: Sums) -> None:
        name = self.networks[step.index % 2]
        self.trained[name].graph.flat.grad.zero_()
        for batch in batches:
            middle, first_cache = self.graphs["first"].forward(batch.x, step.mode)
            y, cache = self.graphs["second2"].forward(middle, step.mode)
            value, loss_cache = self.loss.forward(y, self._truth(batch.x))
            dy = self.loss.backward(loss_cache) / len(batches)
            last = name == "second2"
            dx = self.graphs["second2"].backward(dy, cache, need_dx=not last, need_dparams=last)
            if dx is not None:
                self.graphs["first"].backward(dx, first_cache, need_dx=False)
            for metric in ("loss", f"{name}_loss"):
                sums.add(metric, value * len(batch), len(batch))
        self.trained[name].update(step, sums.total("loss"))

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        y = self.predict(batch.x)
        sums.add("loss", self.loss.forward(y, self._truth(batch.x))[0] * len(batch), len(batch))
        return y

    def predict(self, x: Tensor) -> Tensor:
        middle, _ = self.graphs["first"].forward(x, EVALUATION)
        return self.graphs["second2"].forward(middle, EVALUATION)[0]

    def _truth(self, x: Tensor) -> Tensor:
        return x.flatten(0, -2).mean(0, keepdim=True)

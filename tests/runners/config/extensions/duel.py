"""A generator and a discriminator that take steps in turn, each with a loss that compares values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runners.data.batches import Batch
from runners.data.dataset import Description
from runners.tasks.sums import Sums
from runners.tasks.task import EVALUATION, Metric, Step, Task


class Duel(Task):
    """The discriminator gives 1 for pictures and 0 for what the generator makes of `latent` random numbers."""

    kind = "duel"
    networks = ("generator", "discriminator")
    metrics = (
        Metric("loss", "lower"),
        Metric("score", splits=("val", "test")),
        Metric("realism", "higher", splits=("val", "test"), optional=True),
    )

    def __init__(self, latent: int = 4) -> None:
        self.latent = latent

    def input_shapes(self, data: Description) -> dict[str, tuple[int, ...]]:
        return {"generator": (self.latent,), **({"discriminator": data.input_shape} if data.input_shape else {})}

    def train_step(self, batches: Sequence[Batch], step: Step, sums: Sums) -> None:
        name = self.networks[step.index % 2]
        judging = name == "discriminator"
        self.trained[name].graph.flat.grad.zero_()
        for batch in batches:
            z = torch.randn(self.latent, len(batch), generator=step.mode.generator, dtype=batch.x.dtype)
            pictures, cache = self.graphs["generator"].forward(z, step.mode)
            value, dx = self._judge(pictures, step, float(not judging), judging)
            if judging:
                self._judge(batch.x, step, 1.0, judging)
            elif dx is not None:
                self.graphs["generator"].backward(dx, cache, need_dx=False)
            sums.add("loss", value * len(batch), len(batch))
        self.trained[name].update(step, sums.total("loss"))

    def _judge(self, x: Tensor, step: Step, wanted: float, learns: bool) -> tuple[Tensor, Tensor | None]:
        y, cache = self.graphs["discriminator"].forward(x, step.mode)
        value, loss_cache = self.loss.forward(y, torch.full_like(y, wanted))
        dy = self.loss.backward(loss_cache)
        return value, self.graphs["discriminator"].backward(dy, cache, need_dx=not learns, need_dparams=learns)

    def evaluate(self, batch: Batch, sums: Sums) -> Tensor:
        y, _ = self.graphs["discriminator"].forward(batch.x, EVALUATION)
        value, _ = self.loss.forward(y, torch.ones_like(y))
        sums.add("loss", value * len(batch), len(batch))
        sums.add("score", y.sum(), len(batch))
        return y

    def set_metrics(self, outputs: Tensor, epoch: int | None) -> dict[str, float]:
        return (
            {"realism": -epoch} if epoch is not None and epoch % 2 == 0 else {}
        )  # falls, and is missing in every other epoch

    def predict(self, x: Tensor) -> Tensor:
        return self.graphs["generator"].forward(x, EVALUATION)[0]

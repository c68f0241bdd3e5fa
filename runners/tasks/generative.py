"""What tasks share that draw pictures from noise: samples, and numbers that say how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cnn import Graph
from cnn.faults import Fault
from cnn.text import columns, printable
from runners.pictures.grid import grid
from runners.tasks.judge import Judge, blurred
from runners.tasks.measures import class_shares, frechet_distance, precision_and_recall
from runners.tasks.noise import fixed_noise
from runners.tasks.task import Answer, Array, Metric, Task
from runners.tasks.walks import STEPS, STOPS, WALK_COLUMNS, WALKERS, endless

MEASURED = ("val", "test")
JUDGED = (
    Metric("frechet", "lower", ".2f", (0.0, float("inf")), MEASURED, optional=True),
    Metric("precision", "higher", ".2%", (0.0, 1.0), MEASURED, optional=True),
    Metric("recall", "higher", ".2%", (0.0, 1.0), MEASURED, optional=True),
    Metric("agreement", "higher", ".2%", (0.0, 1.0), MEASURED, optional=True),
)
"""What a judge measures: the Frechet distance of its features between data and samples, precision and recall of the
samples, and of a conditional generator the share of samples that it recognises as their class."""

SAMPLES_COUNTED = 1000
"""The classes of this many samples are counted by an evaluation."""
MIN_JUDGED = 8
"""Fewer real pictures have no covariance and no neighbours to speak of."""
DRAWN_AT_ONCE = 256
COLUMNS, SIDE = 10, 8
"""Pictures of a conditional generator have a column for each class, up to 10 columns of 10; others are 8 by 8."""


class Generative(Task):
    """A task that draws pictures from noise, with its samples judged by a classifier of the data.

    `latent_size`: the values of a latent vector. `judge`: `auto`, the classifier that the experiment `judge` makes of
    the same data, once; a run directory of another one; or null, for no numbers. `eval_every`: the numbers are measured
    after the first epoch and then in every so many epochs. There are as many samples as real pictures, up to `samples`,
    and their noise is always the same.
    """

    predicts: Answer = "samples"
    latent_size: int
    judge_from: str | None = None
    eval_every: int = 1
    samples: int = 10_000
    judge: Judge | None = None
    """Set by what builds the task, if its numbers are wanted."""

    @property
    def conditional_classes(self) -> int:
        """The number of classes that pictures can be drawn of, or 0."""
        return 0

    def draw(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        """The pictures [C, *S, N], with values in [0, 1], of latent vectors z [L, N] (and of these classes [N])."""
        raise NotImplementedError

    def latent(self, first: int, count: int, seed: int = 0) -> Tensor:
        """The latent vectors [L, count] of samples with these numbers, which are always the same."""
        flat = next(iter(self.graphs.values())).flat.data
        return fixed_noise(torch.randn, flat.new_empty(self.latent_size, count), first, seed)

    def classes_of(self, first: int, count: int) -> Tensor | None:
        """The classes that samples with these numbers are drawn of: each class in turn."""
        classes = self.conditional_classes
        return torch.arange(first, first + count) % classes if classes else None

    def sample(self, count: int, seed: int = 0, only: int | None = None, first: int = 0) -> Tensor:
        """Pictures [C, *S, count]; of a conditional generator each class in turn, or `only` one."""
        parts = []
        for start in range(first, first + count, DRAWN_AT_ONCE):
            size = min(DRAWN_AT_ONCE, first + count - start)
            classes = self.classes_of(start, size) if only is None else torch.full((size,), only)
            parts.append(self.draw(self.latent(start, size, seed), classes).cpu())
        return torch.cat(parts, -1)

    def judged_features(self, pictures: Tensor) -> Tensor:
        """The features of real pictures, above those of the same pictures blurred, [2 F, N]; without a judge [0, N]."""
        if self.judge is None:
            return torch.empty(0, pictures.shape[-1], device=pictures.device)
        return torch.cat([self.judge.features(pictures), self.judge.features(blurred(pictures.cpu()))])

    def set_metrics(self, outputs: Tensor, epoch: int | None) -> dict[str, float]:
        """The numbers of the judge, in epochs in which they are due."""
        due = epoch is None or epoch == 1 or epoch % self.eval_every == 0
        if self.judge is None or not due or outputs.shape[-1] < MIN_JUDGED:
            return {}
        real, _ = outputs.chunk(2)
        count = min(self.samples, real.shape[-1])
        generated = self.judge.features(self.sample(count))
        precision, recall = precision_and_recall(real[:, :count], generated)
        found = {"frechet": frechet_distance(real, generated), "precision": precision, "recall": recall}
        wanted = self.classes_of(0, count)
        if wanted is not None:
            found["agreement"] = float((self.judge.classify(generated) == wanted).double().mean())
        return found

    def state(self) -> dict[str, Any]:
        """Whose numbers the rows of metrics.csv are."""
        return {"judge": self.judge.digest if self.judge else ""}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        before, now = state["judge"], self.judge.digest if self.judge else ""
        if before and now and before != now:
            problem = f"its samples were judged by weights sha256 {str(before)[:12]}, task.judge has {now[:12]} now"
            raise ValueError(f"{problem}, and their numbers can't be compared")

    def facts(self) -> dict[str, str]:
        return {"judge": self.judge.digest} if self.judge else {}

    def findings(self, targets: Tensor, class_names: Sequence[str], outputs: Tensor) -> tuple[dict[str, Any], str]:
        """The yardstick of blurred pictures, and how often the judge sees each class in samples."""
        if self.judge is None or outputs.shape[-1] < MIN_JUDGED:
            return {}, ""
        real, soft = outputs.chunk(2)
        yardstick = frechet_distance(real, soft)
        count = min(SAMPLES_COUNTED, self.samples)
        seen = class_shares(self.judge.classify(self.judge.features(self.sample(count))), len(self.judge.class_names))
        named = {name: float(share) for name, share in zip(self.judge.class_names, seen, strict=True)}
        rows = [("class", f"share of {count:,} samples")]
        rows += [(printable(name), f"{share:.2%}") for name, share in named.items()]
        lines = [f"judged by a classifier with weights sha256 {self.judge.digest[:12]}"]
        lines += [f"frechet distance of the test pictures blurred by 1 pixel: {yardstick:.2f}"]
        details = {"judge": self.judge.digest, "frechet_of_blurred": yardstick, "class_shares": named}
        return details, "\n".join([*lines, *columns(rows, "><")])

    def snapshot(self) -> Array | None:
        """A grid of samples of the same noise each time."""
        classes = self.conditional_classes
        columns = min(classes, COLUMNS) or SIDE
        count = columns * (COLUMNS if classes else SIDE)
        return self._sheet(self.latent(0, count), torch.arange(count) % columns if classes else None, columns)

    def pictures(self) -> dict[str, list[Array]]:
        """`samples`, the grid with the best weights, and `walk`, an endless walk through the latent space."""
        samples = self.snapshot()
        if samples is None:
            return {}
        stops = [self.latent(stop * WALKERS, WALKERS) for stop in range(STOPS)]
        classes = self.classes_of(0, WALKERS)
        frames = [self._sheet(z, classes, WALK_COLUMNS) for z in endless(stops, STEPS)]
        return {"samples": [samples], "walk": [frame for frame in frames if frame is not None]}

    def _sheet(self, z: Tensor, classes: Tensor | None, columns: int) -> Array | None:
        """Samples as one picture; None if they can't be shown as pictures."""
        drawn = self.draw(z, classes)
        return grid(drawn.cpu().numpy(), columns) if drawn.dim() == 4 and len(drawn) in (1, 3) else None


def output_faults(graphs: Mapping[str, Graph], **wanted: tuple[tuple[int, ...] | None, str]) -> list[Fault]:
    """A fault for each network whose output isn't of the shape that is wanted, if that is known, with what it is."""
    faults = []
    for name, graph in graphs.items():
        given, (needed, what) = graph.output_shape(graph.input_shape), wanted[name]
        if needed is not None and given != needed:
            last = list(graph.layers)[-1]
            problem = f"the last, {last}, gives {list(given)}, but {list(needed)} is needed: {what}"
            faults.append(Fault(f"{name}.layers", problem))
    return faults

"""Drawing: pictures of noise, made by a network that is rebuilt from its checkpoint alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn import ops
from cnn.text import nearest
from runners.errors import CheckpointError, OptionError, short
from runners.files import checkpoint
from runners.files.content import Checkpoint
from runners.pictures.grid import as_bytes, grid
from runners.prediction import batch_size, require_finite, threads
from runners.tasks.generative import Generative
from runners.tasks.walks import STEPS, STOPS, WALKERS, endless

Array = np.ndarray[Any, Any]


class Sampler:
    """A task that draws pictures from noise, and the noise that it is given: that of a seed, of one class or of all.

    Sample number n has noise of its own, and its place in a batch of fixed size: it is the same picture, to the last
    bit, however many are drawn.
    """

    def __init__(self, task: Generative, content: Checkpoint, *, seed: int = 0, only: str | None = None) -> None:
        shape = tuple(content.data.input_shape)
        if len(shape) != 3 or shape[0] not in (1, 3):
            problem = f"its samples are {list(shape)}, pictures are [1 or 3 channels, height, width]"
            raise CheckpointError(f"{content.place}: {problem}")
        self.task = task
        self.content = content
        self.seed = seed
        self.only = None if only is None else self._number(only)
        self.batch_size = batch_size(shape)

    def _number(self, name: str) -> int:
        """The number of a class. Raises OptionError if there is no such class."""
        names = self.content.data.class_names[: self.task.conditional_classes]
        if not names:
            raise OptionError(f"--class: {self.content.place} was trained without classes: leave it out")
        if name not in names:
            raise OptionError(f"--class: unknown {short(repr(name))}, {short(nearest(name, names))}")
        return names.index(name)

    def samples(self, count: int) -> Iterator[Array]:
        """The first samples in batches, as bytes [C, H, W, N]. Raises CheckpointError for infinite values and NaN."""
        for first in range(0, count, self.batch_size):
            z = self.task.latent(first, self.batch_size, self.seed)
            yield self._drawn(z, first)[..., : count - first]

    def walk(self, count: int) -> Iterator[Array]:
        """The frames of a walk that starts from the first samples, at most 16, and returns to them."""
        count = min(count, WALKERS)
        columns = math.ceil(math.sqrt(count))
        stops = [self.task.latent(stop * WALKERS, WALKERS, self.seed) for stop in range(STOPS)]
        for z in endless(stops, STEPS):
            yield grid(self._drawn(z, 0)[..., :count], columns)

    def columns(self, count: int) -> int:
        """The columns of a grid that is about square, with each class in columns of its own where that is possible."""
        side = math.ceil(math.sqrt(count))
        classes = self.task.conditional_classes if self.only is None else 0
        return classes * max(1, round(side / classes)) if 0 < classes <= count else side

    def _drawn(self, z: Tensor, first: int) -> Array:
        """The pictures of latent vectors, those of the samples from `first` on, as bytes."""
        count = z.shape[-1]
        classes = self.task.classes_of(first, count) if self.only is None else torch.full((count,), self.only)
        with checkpoint.enough_memory(self.content), ops.kernels("reference"), threads(self.batch_size):
            drawn = self.task.draw(z, classes)
        require_finite(drawn, self.content)
        return as_bytes(drawn.numpy())

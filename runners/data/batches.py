"""Batches: examples in the batch-last layout, normalised, without a loop over images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runners.data.augmentation import Augmentation
from runners.data.dataset import Examples
from runners.data.making import DeviceMaker, Maker, Pixels

AUGMENTATION = 1
"""The random stream of augmentation. Not 0, because numpy seeds [seed, epoch, 0, 0] like [seed, epoch]."""


@dataclass(frozen=True)
class Batch:
    """Inputs x [C, *S, N] and targets, such as classes [N]; targets have the batch last too.

    `first`: how many examples are in the batches before it.
    """

    x: Tensor
    targets: Tensor
    first: int = 0

    def __len__(self) -> int:
        return self.x.shape[-1]


class Batches:
    """Examples in batches; the last batch may be smaller.

    Pixels are scaled to [0, 1], then normalised with `mean` and `std`. Shuffled batches are for training: only they are
    augmented. `capture`: whether what makes a batch on a device is recorded and replayed. `as_on_device`: whether
    batches on a CPU are made as on other devices, as their stand-in in tests.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        *,
        mean: float,
        std: float,
        dtype: torch.dtype,
        device: torch.device,
        augmentation: Augmentation | None = None,
        capture: bool = True,
        as_on_device: bool = False,
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.device = device
        self.augmentation = augmentation or Augmentation()
        pixels = Pixels(mean, std, torch.empty(0, dtype=dtype, device=device), self.augmentation)
        on_device = as_on_device or device.type != "cpu"
        self._maker = DeviceMaker(examples, pixels, capture=capture) if on_device else Maker(examples, pixels)

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def in_order(self) -> Iterator[Batch]:
        """Batches in the order of the examples. Each is valid until the next one is drawn."""
        return self._cut(np.arange(len(self.examples)))

    def shuffled(self, seed: int, epoch: int, first: int = 0, keep: int = 1) -> Iterator[Batch]:
        """Shuffled, augmented batches; seed and epoch determine both the order and the augmentation.

        `first`: the index of the batch to start with. `keep`: how many batches are used at a time. Each is valid until
        this many others are drawn, from whichever iterator of this object: on a device they have the same memory.
        """

        def random(number: int) -> np.random.Generator:
            return np.random.default_rng([seed, epoch, number, AUGMENTATION])

        order = np.random.default_rng([seed, epoch]).permutation(len(self.examples))
        return self._cut(order, random if self.augmentation.changes_anything else None, first, keep)

    def _cut(
        self,
        order: np.ndarray[tuple[int], np.dtype[np.int64]],
        random: Callable[[int], np.random.Generator] | None = None,
        first: int = 0,
        keep: int = 1,
    ) -> Iterator[Batch]:
        size = self.batch_size
        placed = self._maker.begin(torch.from_numpy(order))
        for number in range(first, len(self)):
            generator = random(number) if random else None
            chosen = placed[number * size : (number + 1) * size]
            x, targets = self._maker.make(chosen, generator, number % keep)
            yield Batch(x, targets, number * size)

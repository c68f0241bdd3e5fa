"""Batches: examples in the batch-last layout, normalised, without a loop over images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnn import ops
from runners.data.augmentation import Augmentation
from runners.data.dataset import Examples

AUGMENTATION = 1
"""The random stream of augmentation. Not 0, because numpy seeds [seed, epoch, 0, 0] like [seed, epoch]."""


def _unchanged(pixels: Tensor, number: int) -> Tensor:
    return pixels


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
    augmented.
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
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.device = device
        self.augmentation = augmentation or Augmentation()
        self._rows = examples.images.flatten(1)
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def in_order(self) -> Iterator[Batch]:
        """Batches in the order of the examples."""
        return self._cut(np.arange(len(self.examples)))

    def shuffled(self, seed: int, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Shuffled, augmented batches; seed and epoch determine both the order and the augmentation.

        `first`: the index of the batch to start with.
        """

        def augment(pixels: Tensor, number: int) -> Tensor:
            return self.augmentation(pixels, np.random.default_rng([seed, epoch, number, AUGMENTATION]))

        order = np.random.default_rng([seed, epoch]).permutation(len(self.examples))
        change = augment if self.augmentation.changes_anything else _unchanged
        return self._cut(order, change, first)

    def _cut(
        self,
        order: np.ndarray[tuple[int], np.dtype[np.int64]],
        change: Callable[[Tensor, int], Tensor] = _unchanged,
        first: int = 0,
    ) -> Iterator[Batch]:
        shape = self.examples.images.shape[1:]
        for number in range(first, len(self)):
            chosen = torch.from_numpy(order[number * self.batch_size : (number + 1) * self.batch_size])
            x = ops.empty((*shape, len(chosen)), like=self._like)
            ops.take_examples(x.view(-1, len(chosen)), self._rows, chosen)
            x = change(x, number).mul_(self._scale).add_(self._shift)
            targets = self.examples.targets[chosen].movedim(0, -1).contiguous().to(self.device)
            yield Batch(x, targets, number * self.batch_size)

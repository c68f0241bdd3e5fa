"""Batches: examples in the batch-last layout, normalised, without a loop over images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runners.data.dataset import Examples


@dataclass(frozen=True)
class Batch:
    """Inputs x [C, *S, N] and classes [N]."""

    x: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """Examples cut into batches; the last one holds what is left over.

    Pixels are scaled to [0, 1], less `mean`, divided by `std`.
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
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.dtype = dtype
        self.device = device
        self._rows = examples.images.flatten(1)
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def in_order(self) -> Iterator[Batch]:
        """The examples as they lie."""
        return self._cut(np.arange(len(self.examples)))

    def shuffled(self, seed: int, epoch: int) -> Iterator[Batch]:
        """The examples in an order that the seed and the epoch decide."""
        return self._cut(np.random.default_rng([seed, epoch]).permutation(len(self.examples)))

    def _cut(self, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[Batch]:
        shape = self.examples.images.shape[1:]
        for start in range(0, len(order), self.batch_size):
            chosen = torch.from_numpy(order[start : start + self.batch_size])
            pixels = self._rows[chosen].to(self.device)  # [N, C S]
            x = pixels.t().to(self.dtype, memory_format=torch.contiguous_format)
            x = x.mul_(self._scale).add_(self._shift).view(*shape, len(chosen))
            yield Batch(x, self.examples.labels[chosen].to(self.device))

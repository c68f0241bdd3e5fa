"""How a batch is made from examples: gathered into the batch-last layout, augmented and normalised."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cnn import ops
from cnn.ops.replays import Replayed
from runners.data import transfer
from runners.data.augmentation import Augmentation
from runners.data.dataset import Examples

MAX_SHARE = 0.5
"""Of a device's free memory, what examples may take; the rest is for the network."""


@dataclass(frozen=True)
class Pixels:
    """What becomes of pixels from 0 to 255: they are augmented, scaled to [0, 1], and normalised.

    `like`: a tensor with the dtype and the device of the batches.
    """

    mean: float
    std: float
    like: Tensor
    augmentation: Augmentation = field(default_factory=Augmentation)

    def empty(self, shape: Sequence[int], count: int) -> Tensor:
        """Memory for the pixels [C, *S, N] of this many examples, where `shape` is [C, *S]."""
        return ops.empty((*shape, count), like=self.like)

    def gathered(self, rows: Tensor, chosen: Tensor, pixels: Tensor) -> Tensor:
        """The chosen rows as pixels, in the memory given for them."""
        ops.take_examples(pixels.view(-1, len(chosen)), rows, chosen)
        return pixels

    def normalised(self, pixels: Tensor) -> Tensor:
        """The normalised pixels, in their own memory."""
        return pixels.mul_(1 / (255 * self.std)).add_(-self.mean / self.std)


class Maker:
    """Makes batches on the CPU."""

    def __init__(self, examples: Examples, pixels: Pixels) -> None:
        self.examples = examples
        self.pixels = pixels
        self.shape = examples.images.shape[1:]
        self.rows = examples.images.flatten(1)

    def begin(self, order: Tensor) -> Tensor:
        """The order of an epoch's examples [examples], where `make` takes its parts from."""
        return order

    def make(self, chosen: Tensor, generator: np.random.Generator | None, slot: int) -> tuple[Tensor, Tensor]:
        """Inputs x [C, *S, N] and targets of the chosen examples [N], augmented if there is a generator.

        They are valid until the next call for the same slot.
        """
        x = self.pixels.gathered(self.rows, chosen, self.pixels.empty(self.shape, len(chosen)))
        if generator is not None:
            x = self.pixels.augmentation(x, generator)
        return self.pixels.normalised(x), _batch_last(self.examples.targets[chosen])


@dataclass
class DeviceBatches:
    """What turns examples on a device into batches there: functions of tensors.

    All batches of a slot and a size are in the same memory, from the first one on, so that a step which was recorded on
    it needs no copy of them. `rows` and `targets`: those of the data set, unless they are copied for each batch.
    """

    pixels: Pixels
    shape: Sequence[int]
    rows: Tensor
    targets: Tensor
    memory: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def chosen(self, slot: int, chosen: Tensor, *draws: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of resident examples. They aren't among its inputs, which a replay copies."""
        return self._finished(slot, self.rows, chosen, _batch_last(self.targets[chosen]), draws)

    def streamed(self, slot: int, rows: Tensor, targets: Tensor, *draws: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of examples that were chosen on the CPU."""
        every = torch.arange(len(rows), device=rows.device)
        return self._finished(slot, rows, every, _batch_last(targets), draws)

    def _finished(
        self, slot: int, rows: Tensor, chosen: Tensor, targets: Tensor, draws: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        place = slot, len(chosen)
        if place not in self.memory:
            self.memory[place] = self.pixels.empty(self.shape, len(chosen)), torch.empty_like(targets)
        own_x, own_targets = self.memory[place]
        x = self.pixels.gathered(rows, chosen, own_x)
        if draws:
            x = own_x.copy_(self.pixels.augmentation.apply(x, draws))
        return self.pixels.normalised(x), own_targets.copy_(targets)


class DeviceMaker(Maker):
    """Makes batches on a device, with few launches from Python: what makes a batch is a replayed function of tensors.

    The examples are copied to the device once, before the first batch, and then an epoch's order once an epoch. If they
    take too much of its memory they stay on the CPU, and each batch's rows are copied.
    """

    def __init__(self, examples: Examples, pixels: Pixels, *, capture: bool = True) -> None:
        super().__init__(examples, pixels)
        self._capture = capture
        self._streams: bool | None = None
        self._batches = DeviceBatches(pixels, self.shape, self.rows, examples.targets)
        self._slots: dict[int, Replayed[tuple[Tensor, Tensor]]] = {}

    def begin(self, order: Tensor) -> Tensor:
        device = self.pixels.like.device
        if self._streams is None:
            tables = self.rows, self.examples.targets
            self._streams = not transfer.fit_on(device, tables, MAX_SHARE)
            if not self._streams:  # copied as they are: pinning them all would take as much memory of the host
                self._batches.rows, self._batches.targets = (table.to(device) for table in tables)
        return order if self._streams else transfer.upload(order, device)

    def make(self, chosen: Tensor, generator: np.random.Generator | None, slot: int) -> tuple[Tensor, Tensor]:
        pixels, device = self.pixels, self.pixels.like.device
        inputs = [chosen]
        if self._streams:
            inputs = [transfer.upload_rows(table, chosen, device) for table in (self.rows, self.examples.targets)]
        if generator is not None:
            inputs += pixels.augmentation.draw(generator, (*self.shape, len(chosen)), pixels.like)
        if slot not in self._slots:
            make = self._batches.streamed if self._streams else self._batches.chosen
            self._slots[slot] = Replayed(functools.partial(make, slot), enabled=self._capture)
        return self._slots[slot].of(*inputs)


def _batch_last(targets: Tensor) -> Tensor:
    return targets.movedim(0, -1).contiguous()

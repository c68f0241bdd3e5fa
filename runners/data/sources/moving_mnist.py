"""Clips of drifting digits, generated from MNIST. Recognising the direction takes more than one frame."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from cnn.arguments import NonNegative, Positive
from cnn.faults import ConfigError, Fault
from runners.data.dataset import Examples, Source, ValSplit
from runners.data.sources.idx import Mnist

Array = np.ndarray[Any, Any]
Frames = Annotated[int, Field(ge=2, le=64)]
Size = Annotated[int, Field(ge=14, le=128)]

DIRECTIONS = {  # rows down and columns to the right per frame
    "right": (0, 1),
    "down-right": (1, 1),
    "down": (1, 0),
    "down-left": (1, -1),
    "left": (0, -1),
    "up-left": (-1, -1),
    "up": (-1, 0),
    "up-right": (-1, 1),
}


class MovingMnist(Source):
    """Clips [1, frames, size, size]: an MNIST digit, halved to 14x14, drifts in the direction that is its class.

    The canvas is a torus. The first position is uniform on it and independent of the direction, and so is the position
    in every later frame: a single frame says nothing about the class. Classes are balanced. Training clips show digits
    of the training file, test clips digits of the test file. After Srivastava et al. 2015, section 4.1, whose digits
    bounce off walls. Raises ConfigError if the speed is at least half the size, where opposite directions look alike.
    """

    kind = "moving_mnist"

    known_classes = len(DIRECTIONS)

    def __init__(
        self,
        num_examples: Positive | None = None,
        val_examples: Positive = 2000,
        val_split: ValSplit = "train",
        split_seed: NonNegative = 0,
        frames: Frames = 8,
        size: Size = 20,
        speed: Positive = 1,
        clip_seed: NonNegative = 0,
    ) -> None:
        if 2 * speed >= size:
            problem = f"{speed} is not allowed for a size of {size}, give at most {(size - 1) // 2}"
            raise ConfigError([Fault("speed", problem)])
        super().__init__(num_examples, val_examples, val_split, split_seed)
        self.frames = frames
        self.size = size
        self.speed = speed
        self.clip_seed = clip_seed
        self.class_names = list(DIRECTIONS)
        self.known_shape = (1, frames, size, size)

    def read(self) -> tuple[Examples, Examples]:
        """The first frames [count, 1, size, size] of all clips. `render` needs only these and the directions."""
        train, test = Mnist().read()
        return self._first_frames(train, 0), self._first_frames(test, 1)

    def render(self, examples: Examples) -> Examples:
        """Clips [count, 1, frames, size, size] from first frames: frame t is the first, rolled by t steps."""
        first, labels = examples.images.numpy(), examples.targets.numpy()
        clips = np.zeros((len(first), 1, self.frames, self.size, self.size), np.uint8)
        for label, step in enumerate(DIRECTIONS.values()):
            chosen = labels == label
            shown = first[chosen]
            for time in range(self.frames):
                clips[chosen, :, time] = np.roll(shown, [self.speed * time * pixels for pixels in step], (-2, -1))
        return Examples(torch.from_numpy(clips), examples.targets)

    def _first_frames(self, digits: Examples, file: int) -> Examples:
        small = _halved(digits.images[:, 0].numpy())
        count, height, width = small.shape
        generator = np.random.default_rng([self.clip_seed, file])
        labels = generator.permutation(count) % len(DIRECTIONS)
        top, left = generator.integers(0, self.size, (2, count, 1))
        rows, columns = ((top + np.arange(height)) % self.size, (left + np.arange(width)) % self.size)
        first = np.zeros((count, self.size, self.size), np.uint8)
        first[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None]] = small
        return Examples(torch.from_numpy(first[:, None]), torch.from_numpy(labels))


def _halved(images: Array) -> Array:
    """[count, H, W] to [count, H/2, W/2]: each pixel is the mean of four."""
    four = images[:, ::2, ::2].astype(np.uint16)
    for row, column in ((0, 1), (1, 0), (1, 1)):
        four += images[:, row::2, column::2]
    halved: Array = ((four + 2) // 4).astype(np.uint8)
    return halved

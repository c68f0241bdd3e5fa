"""Datasets in memory, and how they are split into training, validation and test examples."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from runners.errors import DataError, printable, short

MAX_BYTES = 2**32
"""Largest array of pixels. A file whose header gives a larger size is refused before it is read."""

MAX_LISTED = 6
"""The counts of more classes aren't listed one by one."""

Preparation = Literal["digit", "plain"]
ValSplit = Literal["train", "test"]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Examples:
    """Images as bytes [count, C, *S] and their targets [count, ...]: classes as int64, or any other tensor."""

    images: Tensor
    targets: Tensor

    @property
    def classified(self) -> bool:
        """Whether the targets are classes."""
        return self.targets.dim() == 1 and self.targets.dtype == torch.int64

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: Array) -> Examples:
        """The examples with these indices, in this order."""
        chosen = torch.from_numpy(indices)
        return Examples(self.images[chosen], self.targets[chosen])


@dataclass(frozen=True)
class Description:
    """What is known about a dataset, perhaps before it is read: an example's shape, classes, training examples.

    `classes` is None also if the targets aren't classes. `target_shape` and `target_range`: the shape of one example's
    target, and the smallest and the largest value of all; only known once the data are read.
    """

    input_shape: tuple[int, ...] | None = None
    classes: int | None = None
    examples: int | None = None
    target_shape: tuple[int, ...] | None = None
    target_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Dataset:
    """Examples for training, validation and test, and what prediction needs to know about them.

    `mean` and `std` are those of the training images, with pixels scaled to [0, 1]. `validated_on_test`: whether the
    validation examples are test examples. `notes`: how the source's files were understood, if there is a doubt.
    """

    train: Examples
    val: Examples
    test: Examples
    class_names: list[str]
    preparation: Preparation
    mean: float
    std: float
    fingerprint: str
    validated_on_test: bool = False
    notes: Sequence[str] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[C, *S] of one example."""
        return tuple(self.train.images.shape[1:])

    @property
    def description(self) -> Description:
        targets = self.train.targets
        extremes = float(targets.min()), float(targets.max())
        return Description(
            self.input_shape, len(self.class_names) or None, len(self.train), tuple(targets.shape[1:]), extremes
        )

    def as_text(self) -> str:
        """A line with the numbers of examples, in all and of each class, or else the targets' shape; and the notes."""
        counts = f"{len(self.train):,} training, {len(self.val):,} validation and {len(self.test):,} test examples"
        return "\n".join([f"data: {counts}{self._targets()}", *(f"note: {printable(note)}" for note in self.notes)])

    def _targets(self) -> str:
        """The training examples of each class, or of the smallest and the largest of many; or the targets' shape."""
        labels = self.train.targets
        if not self.class_names or not self.train.classified or int(labels.min()) < 0:
            shape = list(labels.shape[1:])
            return f", whose targets {f'have the shape {shape}' if shape else 'are numbers'}"
        counts = torch.bincount(labels, minlength=len(self.class_names)).tolist()
        names = [short(name) for name in self.class_names]
        if len(names) > MAX_LISTED:
            each = f"{min(counts):,} to {max(counts):,} each"
            return f" of {len(names):,} classes, {names[0]} to {names[-1]} (for training: {each})"
        listed = [f"{name} {count:,}" for name, count in zip(names, counts, strict=False)]
        return f" of {len(names)} classes (for training: {', '.join(listed)})"


class Source:
    """The base of every dataset that a config can name. The constructor takes the arguments under `data`."""

    kind: ClassVar[str]
    preparation: Preparation = "plain"
    class_names: list[str] | None = None
    known_shape: tuple[int, ...] | None = None
    known_classes: int | None = None
    val_file: Examples | None = None
    """Validation examples that the data come with, if they do; `read` sets it."""
    notes: Sequence[str] = ()
    """How the files were understood, if there is a doubt; `read` sets it."""

    def __init__(self, num_examples: int | None, val_examples: int, val_split: ValSplit, split_seed: int) -> None:
        self.num_examples = num_examples
        self.val_examples = val_examples
        self.val_split = val_split
        self.split_seed = split_seed

    @property
    def description(self) -> Description:
        """What is known before any file is read."""
        named = len(self.class_names) if self.class_names else None
        return Description(self.known_shape, self.known_classes or named, self.num_examples)

    def read(self) -> tuple[Examples, Examples]:
        """The examples of the training file and of the test file. Raises DataError if the files can't be used."""
        raise NotImplementedError

    def render(self, examples: Examples) -> Examples:
        """Convert examples from `read` to the network's input; called only for the examples that a run uses."""
        return examples

    def test_examples(self) -> Examples:
        """All examples of the test file, rendered. Raises DataError as `read` does."""
        return self.render(self.read()[1])

    def load(self) -> Dataset:
        """Read and split. Raises DataError if the files can't be used or have too few examples."""
        training_file, test_file = self.read()
        train, val = map(self.render, self._divide(training_file, test_file))
        test = self.render(test_file)
        mean, std = _moments(train.images)
        return Dataset(
            train,
            val,
            test,
            self._names(training_file, test_file),
            self.preparation,
            mean,
            std,
            _fingerprint(training_file, test, *([] if self.val_file is None else [self.val_file])),
            self.val_file is None and self.val_split == "test",
            self.notes,
        )

    def _require_training_examples(self, available: int, what: str) -> None:
        if self.num_examples is None and not available:
            raise DataError(f"data.val_examples: {self.val_examples} leaves no examples for training")
        _require("data.num_examples", self.num_examples or 1, available, what)

    def _divide(self, training_file: Examples, test: Examples) -> tuple[Examples, Examples]:
        """Draw training and validation examples. Only `split_seed` matters, so that runs are comparable."""
        order = np.random.default_rng(self.split_seed).permutation(len(training_file))
        if self.val_file is None and self.val_split == "train":
            _require("data.val_examples", self.val_examples, len(order), "examples in the training file")
            val, order = training_file.select(order[: self.val_examples]), order[self.val_examples :]
            self._require_training_examples(len(order), "examples left after validation")
        else:
            own, where = (test, "the test file") if self.val_file is None else (self.val_file, "the validation file")
            _require("data.val_examples", self.val_examples, len(own), f"examples in {where}")
            self._require_training_examples(len(order), "examples in the training file")
            val = own.select(np.random.default_rng(self.split_seed).permutation(len(own))[: self.val_examples])
        return training_file.select(order[: self.num_examples]), val

    def _names(self, training_file: Examples, test: Examples) -> list[str]:
        """The name of each class; none if the targets aren't classes."""
        if self.class_names or not (training_file.classified and test.classified):
            return self.class_names or []
        classes = 1 + max(int(examples.targets.max()) for examples in (training_file, test))
        return [str(number) for number in range(self.known_classes or classes)]


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Turn errors of reading and unpacking into DataError, with the name of the file, or else the place."""
    try:
        yield
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        file, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
        raise DataError(f"{file or place}: can't be read: {reason or error}") from None


def _require(argument: str, wanted: int, available: int, what: str) -> None:
    if wanted > available:
        raise DataError(f"{argument}: {wanted} is more than the {available} {what}")


def _moments(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, scaled to [0, 1]; exact, from the counts of the byte values."""
    counts = torch.bincount(images.flatten(), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * values).sum() / counts.sum()
    deviation = ((counts * (values - mean).square()).sum() / counts.sum()).sqrt()
    return mean.item(), max(deviation.item(), 1 / 255)


def _fingerprint(*files: Examples) -> str:
    """SHA-256 of all images and targets. Runs with the same fingerprint saw the same files."""
    digest = hashlib.sha256()
    for examples in files:
        for tensor in (examples.images, examples.targets):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.numpy().data)
    return digest.hexdigest()

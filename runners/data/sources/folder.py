"""Pictures in folders, a folder a class."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from tqdm import tqdm

from cnn.arguments import NonNegative, Positive, Text
from cnn.ops.threads import available_threads
from runners.data.dataset import MOST_BYTES, Examples, Source, ValSplit, reading
from runners.errors import DataError, ImageError
from runners.pictures.reading import FORMATS, find_pictures, prepare_plain, read_picture, without_warnings
from runners.signals import raising_signals

Pixels = Annotated[int, Field(ge=1, le=4096)]
HeightAndWidth = Annotated[Sequence[Pixels], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Classes = dict[str, list[Path]]
Labelled = tuple[Path, int]
T = TypeVar("T")
TOLD = 3
"""As many bad pictures are named, the others counted."""


class Folder(Source):
    """`path/train/CLASS` and `path/test/CLASS` with pictures; or `path/CLASS`, of which each gives a share to the test.

    Classes are named as their folders and come in natural order, 9 before 10. All that lies in a class's folder, at any
    depth, belongs to it, but for what is hidden or isn't named as a picture. All pictures are resized to one shape, as
    predict.py resizes them.
    """

    kind = "folder"

    def __init__(
        self,
        path: Text,
        num_examples: Positive | None = None,
        val_examples: Positive = 100,
        val_split: ValSplit = "train",
        split_seed: NonNegative = 0,
        size: Pixels | HeightAndWidth = 28,
        channels: Literal[1, 3] = 3,
        test_share: Share = 0.2,
    ) -> None:
        super().__init__(num_examples, val_examples, val_split, split_seed)
        self.path = Path(path)
        height, width = (size, size) if isinstance(size, int) else size
        self.shape = self.known_shape = (channels, height, width)
        self.test_share = test_share

    def read(self) -> tuple[Examples, Examples]:
        train, test = self._files()
        both = self._load([*train, *test])
        images, labels, count = both.images, both.targets, len(train)
        return Examples(images[:count], labels[:count]), Examples(images[count:], labels[count:])

    def test_examples(self) -> Examples:
        return self._load(self._files()[1])

    def _files(self) -> tuple[list[Labelled], list[Labelled]]:
        """The pictures for training and for the test, with the numbers of their classes, whose names are kept."""
        with reading(self.path):
            if not self.path.is_dir():
                raise DataError(f"data.path: there is no directory {self.path}")
            train, test = self._divided() or self._drawn()
        self.class_names = names = list(train)
        if len(names) == 1:
            raise DataError(f"{self.path}: only one class, {names[0]}, give at least two")

        def labelled(classes: Classes) -> list[Labelled]:
            return [(file, names.index(name)) for name, files in classes.items() for file in files]

        return labelled(train), labelled(test)

    def _divided(self) -> tuple[Classes, Classes] | None:
        """What lies in `train` and in `test`, however large these are written, where one of them holds folders."""
        alike = {file.name.casefold(): file for file in sorted(self.path.iterdir())}  # of train and Train, train
        folders = [alike.get(name, self.path / name) for name in ("train", "test")]
        if not any(_folders(folder) for folder in folders if folder.is_dir()):
            return None
        for folder, other in (folders, folders[::-1]):
            if not folder.is_dir():
                raise DataError(f"{folder}: there is no such folder, but there is {other}")
        train, test = (_classes(folder) for folder in folders)
        for name in test:
            if name not in train:
                raise DataError(f"{folders[1] / name}: there is no class {name} in {folders[0]}")
        return train, test

    def _drawn(self) -> tuple[Classes, Classes]:
        """Pictures of each class for training and for the test; `split_seed` alone decides which."""
        train, test = {}, {}
        for number, (name, files) in enumerate(_classes(self.path).items()):
            if len(files) == 1:
                raise DataError(f"{self.path / name}: one picture, give at least two, the other one for the test")
            count = min(max(round(self.test_share * len(files)), 1), len(files) - 1)
            order = np.random.default_rng([self.split_seed, number]).permutation(len(files))
            test[name] = [files[index] for index in sorted(order[:count])]
            train[name] = [files[index] for index in sorted(order[count:])]
        return train, test

    def _load(self, files: Sequence[Labelled]) -> Examples:
        """The pictures resized. Raises DataError with the names of those that can't be read."""
        size = len(files) * math.prod(self.shape)
        if size > MOST_BYTES:
            taken = f"{len(files):,} pictures of {list(self.shape)} take {size:,} bytes"
            raise DataError(f"data.size: {taken}, at most {MOST_BYTES:,} are read")
        images = np.empty((len(files), *self.shape), np.uint8)

        def read(number: int) -> str | None:
            try:
                pixels = prepare_plain(read_picture(files[number][0]), self.shape).pixels
            except ImageError as error:
                return str(error)
            images[number] = np.rint(255 * pixels)
            return None

        with without_warnings():
            faults = [fault for fault in _in_threads(read, len(files)) if fault]
        if faults:
            more = f" (and {len(faults) - TOLD:,} more that can't be read)" if len(faults) > TOLD else ""
            raise DataError("\n".join(faults[:TOLD]) + more)
        labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        return Examples(torch.from_numpy(images), labels)


def _in_threads(read: Callable[[int], T], count: int) -> list[T]:
    """What `read` gives for 0, 1, 2, ...; Pillow lets other threads run while it decodes and resizes."""
    bar = tqdm(total=count, unit="picture", delay=1, disable=None, leave=False, file=sys.stderr)
    with bar, raising_signals(), ThreadPoolExecutor(available_threads()) as pool:
        try:
            results = []
            for result in pool.map(read, range(count)):
                results.append(result)
                bar.update()
            return results
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else leaving the block would read all the others
            raise


def _classes(folder: Path) -> Classes:
    """The pictures in each folder, by its name. Raises DataError where there is no folder, or one without pictures."""
    classes = {name: find_pictures(folder / name) for name in _folders(folder)}
    if not classes:
        raise DataError(f"{folder}: there is no folder in it, each class is one")
    for name, files in classes.items():
        if not files:
            raise DataError(f"{folder / name}: no pictures in it ({', '.join(FORMATS)})")
    return classes


def _folders(folder: Path) -> list[str]:
    """The names of the folders in it that aren't hidden, in natural order."""
    return sorted((file.name for file in folder.iterdir() if file.is_dir() and file.name[0] != "."), key=_natural)


def _natural(name: str) -> tuple[list[Any], str]:
    """What to sort by so that numbers in names count as numbers."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name

"""Pictures in folders, one folder per class."""

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
from runners.data.dataset import MAX_BYTES, Examples, Source, ValSplit, reading
from runners.errors import DataError, ImageError
from runners.files.paths import user_path
from runners.pictures.reading import FORMATS, find_pictures, prepare_plain, read_picture, without_warnings
from runners.signals import raising_signals

Pixels = Annotated[int, Field(ge=1, le=4096)]
HeightAndWidth = Annotated[Sequence[Pixels], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Classes = dict[str, list[Path]]
Labelled = tuple[Path, int]
T = TypeVar("T")
MAX_SHOWN = 3
"""This many bad pictures are named; the others are counted."""


class Folder(Source):
    """Pictures in `path/train/CLASS` and `path/test/CLASS`; or in `path/CLASS`, split into training and test per class.

    Classes have the names of their folders, in natural order, 9 before 10. A class has every picture in its folder, at
    any depth, except hidden files and files without a picture's suffix. All are resized to one shape, as in
    predict.py.
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
        self.path = user_path(path)
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
        """The pictures for training and test, with the indices of their classes. Sets `class_names`."""
        with reading(self.path):
            if not self.path.is_dir():
                raise DataError(f"data.path: there is no directory {self.path}")
            train, test = self._given_split() or self._drawn_split()
        self.class_names = names = list(train)
        if len(names) == 1:
            raise DataError(f"{self.path}: it has only one class, {names[0]}, give at least two")

        def labelled(classes: Classes) -> list[Labelled]:
            return [(file, names.index(name)) for name, files in classes.items() for file in files]

        return labelled(train), labelled(test)

    def _given_split(self) -> tuple[Classes, Classes] | None:
        """The classes in `train` and `test`, in any capitalisation, or None if neither has folders in it."""
        alike = {file.name.casefold(): file for file in sorted(self.path.iterdir())}  # train is preferred to Train
        folders = [alike.get(name, self.path / name) for name in ("train", "test")]
        if not any(_folders(folder) for folder in folders if folder.is_dir()):
            return None
        for folder, other in (folders, folders[::-1]):
            if not folder.is_dir():
                raise DataError(f"{folder}: there is no such folder, although there is {other}")
        train, test = (_classes(folder) for folder in folders)
        for name in test:
            if name not in train:
                raise DataError(f"{folders[1] / name}: there is no class {name} in {folders[0]}")
        return train, test

    def _drawn_split(self) -> tuple[Classes, Classes]:
        """A split of each class into training and test; it depends only on `split_seed`."""
        train, test = {}, {}
        for number, (name, files) in enumerate(_classes(self.path).items()):
            if len(files) == 1:
                raise DataError(f"{self.path / name}: it has one picture, give at least two, as one is for the test")
            count = min(max(round(self.test_share * len(files)), 1), len(files) - 1)
            order = np.random.default_rng([self.split_seed, number]).permutation(len(files))
            test[name] = [files[index] for index in sorted(order[:count])]
            train[name] = [files[index] for index in sorted(order[count:])]
        return train, test

    def _load(self, files: Sequence[Labelled]) -> Examples:
        """Read and resize pictures. Raises DataError with the names of the ones that can't be read."""
        size = len(files) * math.prod(self.shape)
        if size > MAX_BYTES:
            taken = f"{len(files):,} pictures of {list(self.shape)} take {size:,} bytes"
            raise DataError(f"data.size: {taken}, at most {MAX_BYTES:,} are allowed")
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
            more = f" (and {len(faults) - MAX_SHOWN:,} more that can't be read)" if len(faults) > MAX_SHOWN else ""
            raise DataError("\n".join(faults[:MAX_SHOWN]) + more)
        labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        return Examples(torch.from_numpy(images), labels)


def _in_threads(read: Callable[[int], T], count: int) -> list[T]:
    """The results of `read` for 0, 1, 2, ...; Pillow releases the GIL while it decodes and resizes."""
    bar = tqdm(total=count, unit="picture", delay=1, disable=None, leave=False, file=sys.stderr)
    with bar, raising_signals(), ThreadPoolExecutor(available_threads()) as pool:
        try:
            results = []
            for result in pool.map(read, range(count)):
                results.append(result)
                bar.update()
            return results
        except BaseException:
            pool.shutdown(cancel_futures=True)  # otherwise, leaving the block would read all the rest
            raise


def _classes(folder: Path) -> Classes:
    """The pictures in each subfolder, by its name. Raises DataError if there is none, or one without pictures."""
    classes = {name: find_pictures(folder / name) for name in _folders(folder)}
    if not classes:
        raise DataError(f"{folder}: it has no subfolders, give one per class")
    for name, files in classes.items():
        if not files:
            raise DataError(f"{folder / name}: it has no pictures ({', '.join(FORMATS)})")
    return classes


def _folders(folder: Path) -> list[str]:
    """The names of the subfolders that aren't hidden, in natural order."""
    return sorted((file.name for file in folder.iterdir() if file.is_dir() and file.name[0] != "."), key=_natural)


def _natural(name: str) -> tuple[list[Any], str]:
    """A sort key that compares numbers in names as numbers."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name

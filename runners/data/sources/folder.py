"""Pictures in folders, one folder per class."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from tqdm import tqdm

from cnn.arguments import NonNegative, Positive, Text
from cnn.ops.threads import available_threads
from runners.data.dataset import MAX_BYTES, Examples, Preparation, Source, ValSplit, reading
from runners.data.sources.splits import Classes, drawn_splits, given_splits
from runners.errors import DataError, ImageError
from runners.files.paths import user_path
from runners.pictures.preparing import preparer
from runners.pictures.reading import read_picture, without_warnings
from runners.signals import raising_signals

Pixels = Annotated[int, Field(ge=1, le=4096)]
HeightAndWidth = Annotated[Sequence[Pixels], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Labelled = tuple[Path, int]
T = TypeVar("T")
VAL_EXAMPLES = 100
"""For validation, if neither their number nor a folder is given."""
MAX_SHOWN = 3
"""This many bad pictures are named; the others are counted."""


class Folder(Source):
    """Pictures in `path/train/CLASS` and `path/test/CLASS`; or in `path/CLASS`, split into training and test per class.

    The folders of splits may have other usual names, see `splits.NAMES`. Pictures in `path/val` are for validation, all
    of them or `val_examples`; without that folder, `val_examples` are held out, 100 if it isn't given. Classes have the
    names of their folders, in natural order, 9 before 10. A class has every picture in its folder, at any depth, except
    hidden files and files without a picture's suffix. All are resized to one shape, as in predict.py.

    `preparation` is how pictures become examples, in training and in predict.py: resized as they are, or as digits.
    With a `test_share` of 1 all pictures are for the test, which is for evaluation alone.
    """

    kind = "folder"

    def __init__(
        self,
        path: Text,
        num_examples: Positive | None = None,
        val_examples: Positive | None = None,
        val_split: ValSplit = "train",
        split_seed: NonNegative = 0,
        size: Pixels | HeightAndWidth = 28,
        channels: Literal[1, 3] = 3,
        test_share: Share = 0.2,
        preparation: Preparation = "plain",
    ) -> None:
        super().__init__(num_examples, val_examples or VAL_EXAMPLES, val_split, split_seed)
        self.path = user_path(path)
        self._val_examples = val_examples
        height, width = (size, size) if isinstance(size, int) else size
        self.shape = self.known_shape = (channels, height, width)
        self.test_share = test_share
        self.preparation = preparation

    def read(self) -> tuple[Examples, Examples]:
        if self.test_share == 1:
            raise DataError("data.test_share: 1 is not allowed, as it leaves no pictures for training")
        files = self._files()
        if self.class_names and len(self.class_names) == 1:
            raise DataError(f"{self.path}: it has only one class, {self.class_names[0]}, give at least two")
        if files["val"] and self.val_split == "test":
            raise DataError("data.val_split: test is not allowed, as there is a folder of validation pictures")
        every = self._load([*files["train"], *files["val"], *files["test"]])
        ends = np.cumsum([0, *map(len, files.values())]).tolist()
        train, val, test = (Examples(every.images[a:b], every.targets[a:b]) for a, b in pairwise(ends))
        self.val_file = val if len(val) else None
        self.val_examples = self._val_examples or len(val) or VAL_EXAMPLES
        return train, test

    def test_examples(self) -> Examples:
        return self._load(self._files()["test"])

    def as_prepared(self) -> str:
        """How a picture becomes an example, in a sentence."""
        channels, height, width = self.shape
        form = f"{height}x{width} pixels in {'grey' if channels == 1 else 'colour'}"
        how = {"digit": "found, cropped and centred as a digit, light on dark,", "plain": "resized whole"}
        return f"each picture is {how[self.preparation]} to {form}"

    def _files(self) -> dict[str, list[Labelled]]:
        """The pictures of each split, with the indices of their classes. Sets `class_names` and `notes`."""
        with reading(self.path):
            if not self.path.is_dir():
                raise DataError(f"data.path: there is no directory {self.path}")
            splits = given_splits(self.path) or drawn_splits(self.path, self._draw)
        self.class_names, self.notes = list(splits.train), splits.notes
        numbers = {name: number for number, name in enumerate(self.class_names)}

        def labelled(classes: Classes) -> list[Labelled]:
            return [(file, numbers[name]) for name, files in classes.items() for file in files]

        return {"train": labelled(splits.train), "val": labelled(splits.val or {}), "test": labelled(splits.test)}

    def _draw(self, name: str, number: int, count: int) -> tuple[list[int], list[int]]:
        """A class's pictures for training and for test; they depend only on `split_seed`."""
        if self.test_share == 1:
            return [], list(range(count))
        if count == 1:
            raise DataError(f"{self.path / name}: it has one picture, give at least two, as one is for the test")
        tested = min(max(round(self.test_share * count), 1), count - 1)
        order = np.random.default_rng([self.split_seed, number]).permutation(count).tolist()
        return sorted(order[tested:]), sorted(order[:tested])

    def _load(self, files: Sequence[Labelled]) -> Examples:
        """Read and resize pictures. Raises DataError with the names of the ones that can't be read.

        Adds to `notes` if white isn't the same value in all of them.
        """
        size = len(files) * math.prod(self.shape)
        if size > MAX_BYTES:
            taken = f"{len(files):,} pictures of {list(self.shape)} take {size:,} bytes"
            raise DataError(f"data.size: {taken}, at most {MAX_BYTES:,} are allowed")
        images = np.empty((len(files), *self.shape), np.uint8)
        whites = [0] * len(files)
        prepare = preparer(self.preparation)

        def read(number: int) -> str | None:
            path = files[number][0]
            try:
                picture = read_picture(path)
                whites[number] = picture.info["white"]
                pixels = prepare(picture, self.shape).pixels
            except ImageError as error:
                return str(ImageError(error.reason, path))
            images[number] = np.rint(255 * pixels)
            return None

        with without_warnings():
            faults = [fault for fault in _in_threads(read, len(files)) if fault]
        if faults:
            more = f" (and {len(faults) - MAX_SHOWN:,} more that can't be read)" if len(faults) > MAX_SHOWN else ""
            raise DataError("\n".join(faults[:MAX_SHOWN]) + more)
        counts = sorted(Counter(whites).items())
        if len(counts) > 1:
            shown = ", ".join(f"{white} in {count:,}" for white, count in counts)
            self.notes = [*self.notes, f"the value that is white differs between the pictures: {shown}"]
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

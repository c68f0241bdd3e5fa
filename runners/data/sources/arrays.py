"""Arrays in NumPy's files, with classes, numbers or pictures as targets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from cnn.arguments import NonNegative, Positive, Text
from runners.data.dataset import MAX_BYTES, Examples, Source, ValSplit, reading
from runners.errors import DataError, short
from runners.files.paths import user_path

Array = np.ndarray[Any, Any]
READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
"""By the version of the format; 3.0 is only for names of fields."""
MAX_CLASSES = 2**16


@dataclass(frozen=True)
class Header:
    """What a .npy file says about its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def classes(self) -> bool:
        """Whether the values, as targets, are classes."""
        return self.dtype.kind in "iu"


class Arrays(Source):
    """A directory with train_images.npy, train_targets.npy, test_images.npy and test_targets.npy, by `numpy.save`.

    Images are bytes, [count, C, H, W] or volumes [count, C, D, H, W]; [count, H, W] has one channel. Targets are either
    integers [count], which are classes, or floats [count, ...], which are values of any shape and become float32.
    """

    kind = "arrays"

    def __init__(
        self,
        path: Text,
        num_examples: Positive | None = None,
        val_examples: Positive = 5000,
        val_split: ValSplit = "train",
        split_seed: NonNegative = 0,
    ) -> None:
        super().__init__(num_examples, val_examples, val_split, split_seed)
        self.path = user_path(path)

    def read(self) -> tuple[Examples, Examples]:
        """All headers are checked and compared before the values of any file are read."""
        with reading(self.path):
            if not self.path.is_dir():
                raise DataError(f"data.path: there is no directory {self.path}")
            headers = {split: self._headers(split) for split in ("train", "test")}
            self._compare(*headers["train"], *headers["test"])
            train, test = (self._examples(split) for split in headers)
        return train, test

    def _file(self, split: str, content: str) -> Path:
        return self.path / f"{split}_{content}.npy"

    def _headers(self, split: str) -> tuple[Header, Header]:
        """Those of a split's images and targets. Raises DataError if they can't be images and their targets."""
        images_file, targets_file = self._file(split, "images"), self._file(split, "targets")
        images, targets = read_header(images_file), read_header(targets_file)
        if images.dtype != np.uint8:
            raise DataError(f"{images_file}: its values are {short(images.dtype)}, images have to be uint8")
        if len(images.shape) not in (3, 4, 5):
            allowed = "[count, H, W], [count, C, H, W] or [count, C, D, H, W]"
            raise DataError(f"{images_file}: its shape is {list(images.shape)}, images have to be {allowed}")
        if not targets.classes and (targets.dtype.kind != "f" or targets.dtype.itemsize > 8):
            allowed = "integers (classes) or floats of 16, 32 or 64 bits (values)"
            raise DataError(f"{targets_file}: its values are {short(targets.dtype)}, targets have to be {allowed}")
        if not targets.shape or (targets.classes and len(targets.shape) > 1):
            allowed = "integers (classes) have to be [count], floats (values) [count, ...]"
            raise DataError(f"{targets_file}: its shape is {list(targets.shape)}, {allowed}")
        if images.shape[0] != targets.shape[0]:
            counts = f"has {images.shape[0]} images, but {targets_file.name} has {targets.shape[0]} targets"
            raise DataError(f"{images_file} {counts}")
        return images, targets

    def _compare(self, images: Header, targets: Header, test_images: Header, test_targets: Header) -> None:
        """Raise DataError if training and test examples have different shapes or kinds of targets."""
        for content, train, test in (("images", images, test_images), ("targets", targets, test_targets)):
            if train.shape[1:] != test.shape[1:]:
                shapes = f"{list(train.shape[1:])} and {list(test.shape[1:])}"
                raise DataError(f"{self.path}: training and test {content} have different shapes, {shapes}")
        if targets.classes != test_targets.classes:
            problem = f"training targets are {targets.dtype}, test targets {test_targets.dtype}"
            raise DataError(f"{self.path}: {problem}, both have to be integers (classes) or both floats (values)")

    def _examples(self, split: str) -> Examples:
        file = self._file(split, "targets")
        values = read_array(file)
        targets = _classes(values, file) if values.dtype.kind in "iu" else _numbers(values, file)
        images = read_array(self._file(split, "images"))
        return Examples(torch.from_numpy(images[:, None] if images.ndim == 3 else images), targets)


def _classes(values: Array, file: Path) -> Tensor:
    smallest, largest = int(values.min()), int(values.max())
    if smallest < 0 or largest >= MAX_CLASSES:
        allowed = f"classes are 0 to at most {MAX_CLASSES - 1:,}"
        raise DataError(f"{file}: its integers are {smallest} to {largest}, but {allowed}")
    return torch.from_numpy(values.astype(np.int64))


def _numbers(values: Array, file: Path) -> Tensor:
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    unusable = numbers.size - int(np.isfinite(numbers).sum())
    if unusable:
        problem = f"{unusable:,} of its {numbers.size:,} values are NaN, infinite or too large for float32"
        raise DataError(f"{file}: {problem}")
    return torch.from_numpy(numbers)


def read_array(file: Path) -> Array:
    """The array in a .npy file, C-contiguous. Raises DataError for anything else; nothing in the file is executed."""
    with _opened(file) as stream:
        _read_header(stream, file)
        stream.seek(0)
        values: Array = np.load(stream, allow_pickle=False)
    return np.ascontiguousarray(values)


def read_header(file: Path) -> Header:
    """The header of a .npy file; no values are read. Raises DataError as `read_array` does."""
    with _opened(file) as stream:
        return _read_header(stream, file)


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if not file.is_file():
        raise DataError(f"{file}: {'not a file' if file.exists() else 'there is no such file'}")
    with reading(file), file.open("rb") as stream:
        yield stream


def _read_header(stream: IO[bytes], file: Path) -> Header:
    """The header, after a check that the file has exactly the values that it claims, and isn't too large."""
    start = stream.read(len(npy.MAGIC_PREFIX))
    if start != npy.MAGIC_PREFIX:
        raise DataError(f"{file}: it begins with '{start.hex()}', but .npy files begin with {npy.MAGIC_PREFIX.hex()}")
    stream.seek(0)
    try:
        shape, _, dtype = READ_HEADER[npy.read_magic(stream)](stream)
    except OSError:
        raise
    except Exception as error:  # the header is a Python literal, and a damaged one can fail in any way
        raise DataError(f"{file}: its header can't be read: {short(error)}") from None
    if dtype.hasobject:
        raise DataError(f"{file}: its values are Python objects, which are not read")
    if min(shape, default=1) < 1 or not dtype.itemsize:
        raise DataError(f"{file}: it has no values, its shape is {list(shape)}")
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise DataError(f"{file}: its header claims {size:,} bytes, {list(shape)}, at most {MAX_BYTES:,} are allowed")
    begin = stream.tell()
    there = stream.seek(0, 2) - begin
    if there < size:
        raise DataError(f"{file}: truncated, {size - there:,} bytes are missing")
    if there > size:
        raise DataError(f"{file}: it has more data after its {math.prod(shape):,} values")
    return Header(shape, dtype)

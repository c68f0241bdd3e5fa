"""IDX, the format of MNIST's files: a magic number with the type and number of axes, their sizes, then the values."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, cast

import numpy as np
import torch
from pydantic import Field

from cnn.arguments import NonNegative, Positive, Text
from cnn.faults import ConfigError, Fault
from cnn.text import show
from runners.data.dataset import MAX_BYTES, Examples, Preparation, Source, ValSplit, reading
from runners.errors import DataError
from runners.files.paths import user_path

UNSIGNED_BYTE = 0x08
GZIP = b"\x1f\x8b"
CHUNK = 1 << 22
Array = np.ndarray[Any, Any]
ClassNames = Annotated[list[str], Field(min_length=2)]


class Idx(Source):
    """A directory with training and test images and labels, named like MNIST's files, gzipped or not.

    If several files match, `-idx` is preferred to `.idx`, and a file without `.gz` to one with it.
    """

    kind = "idx"

    def __init__(
        self,
        path: Text,
        num_examples: Positive | None = None,
        val_examples: Positive = 5000,
        val_split: ValSplit = "train",
        split_seed: NonNegative = 0,
        preparation: Preparation = "plain",
        class_names: ClassNames | None = None,
    ) -> None:
        super().__init__(num_examples, val_examples, val_split, split_seed)
        self.path = user_path(path)
        self.preparation = preparation
        self.class_names = class_names
        if class_names and len(set(class_names)) < len(class_names):
            raise ConfigError([Fault("class_names", f"{show(class_names)} is not allowed, names must be unique")])

    def read(self) -> tuple[Examples, Examples]:
        with reading(self.path):
            if not self.path.is_dir():
                raise DataError(f"data.path: there is no directory {self.path}")
            train, test = (self._read_pair(prefix) for prefix in ("train", "t10k"))
        if train.images.shape[1:] != test.images.shape[1:]:
            shapes = " and ".join(str(list(examples.images.shape[1:])) for examples in (train, test))
            raise DataError(f"{self.path}: training and test images have different shapes, {shapes}")
        return train, test

    def find(self, prefix: str, content: str) -> Path | None:
        """The file that holds the images or labels of training (prefix `train`) or test (`t10k`), if there is one."""
        patterns = [f"{prefix}-{content}{dot}idx*-ubyte{end}" for dot in "-." for end in ("", ".gz")]
        found = [file for pattern in patterns for file in sorted(self.path.glob(pattern))]
        return next((file for file in found if file.is_file()), found[0] if found else None)

    def _read_pair(self, prefix: str) -> Examples:
        """Images and labels. Their headers are compared before the values of either are read."""
        images_file, labels_file = self._existing(prefix, "images"), self._existing(prefix, "labels")
        shape, labels_shape = read_shape(images_file), read_shape(labels_file)
        if len(shape) not in (3, 4):
            raise DataError(
                f"{images_file}: it has {len(shape)} axes, but images have 3 (count, height, width), volumes 4"
            )
        if len(labels_shape) != 1:
            raise DataError(f"{labels_file}: it has {len(labels_shape)} axes, but labels have 1")
        if shape[0] != labels_shape[0]:
            raise DataError(f"{images_file} has {shape[0]} images, but {labels_file.name} has {labels_shape[0]} labels")
        images, labels = self._read(prefix, "images", images_file), self._read(prefix, "labels", labels_file)
        self._check(images_file, images, labels_file, labels)
        return Examples(torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64)))

    def _check(self, images_file: Path, images: Array, labels_file: Path, labels: Array) -> None:
        """Raise DataError if the shape or the labels contradict what is known about this dataset."""
        if self.known_shape and (1, *images.shape[1:]) != self.known_shape:
            raise DataError(f"{images_file}: its images are {list(images.shape[1:])}, not {list(self.known_shape[1:])}")
        last = int(labels.max())
        if self.known_classes and last >= self.known_classes:
            raise DataError(
                f"{labels_file}: it has labels up to {last}, but the classes are 0 to {self.known_classes - 1}"
            )
        if self.class_names and last >= len(self.class_names):
            problem = f"{len(self.class_names)} names for labels up to {last}, give {last + 1}"
            raise DataError(f"data.class_names: {problem} (labels of {labels_file})")

    def _existing(self, prefix: str, content: str) -> Path:
        file = self.find(prefix, content)
        if not file:
            axes = {"images": 3, "labels": 1}[content]
            raise DataError(f"{self.path}: there is no {prefix}-{content}-idx{axes}-ubyte, with or without .gz")
        return file

    def _read(self, prefix: str, content: str, file: Path) -> Array:
        """The values in a file. A dataset with known files overrides this to verify them."""
        return read_idx(file)


class Mnist(Idx):
    """The handwritten digits that ship with the project."""

    kind = "mnist"

    known_shape = (1, 28, 28)
    known_classes = 10

    def __init__(
        self,
        num_examples: Positive | None = None,
        val_examples: Positive = 5000,
        val_split: ValSplit = "train",
        split_seed: NonNegative = 0,
    ) -> None:
        here = Path(__file__).parents[1] / "mnist"
        super().__init__(str(here), num_examples, val_examples, val_split, split_seed, preparation="digit")


def read_idx(file: Path) -> Array:
    """Read an IDX file of unsigned bytes, gzipped or not. Raises DataError for anything else.

    Memory is allocated for the data that exists, never for what the header claims. Data after the values stays packed.
    """
    with _opened(file) as stream:
        shape = _read_shape(stream, file)
        count = math.prod(shape)
        values = _exactly(_read_at_most(stream, count + 1), count, file)
    return np.frombuffer(values, np.uint8).reshape(shape)


def read_shape(file: Path) -> tuple[int, ...]:
    """The shape in the header of an IDX file; nothing else is read. Raises DataError as `read_idx` does."""
    with _opened(file) as stream:
        return _read_shape(stream, file)


def _read_shape(stream: IO[bytes], file: Path) -> tuple[int, ...]:
    magic = _exactly(stream.read(4), 4, file)
    zeros, kind, axes = struct.unpack(">HBB", magic)
    if zeros or kind != UNSIGNED_BYTE or not 1 <= axes <= 4:
        raise DataError(f"{file}: it begins with {magic.hex()}, but IDX files of bytes begin with 0000080 and 1 to 4")
    shape: tuple[int, ...] = struct.unpack(f">{axes}I", _exactly(stream.read(4 * axes), 4 * axes, file))
    count = math.prod(shape)
    if not count:
        raise DataError(f"{file}: it has no values, its shape is {list(shape)}")
    if count > MAX_BYTES:
        raise DataError(f"{file}: its header claims {count:,} values, {list(shape)}, at most {MAX_BYTES:,} are allowed")
    return shape


def header(shape: Sequence[int]) -> bytes:
    """The header of an IDX file of unsigned bytes of this shape."""
    return struct.pack(f">HBB{len(shape)}I", 0, UNSIGNED_BYTE, len(shape), *shape)


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The file's content, unpacked if it begins with gzip's magic number, whatever its name: no IDX file begins so."""
    if not file.is_file():
        raise DataError(f"{file}: not a file")
    with reading(file), file.open("rb") as packed:
        if packed.peek(2)[:2] != GZIP:
            yield packed
            return
        try:
            with gzip.open(packed) as stream:
                yield cast(IO[bytes], stream)
        except gzip.BadGzipFile as error:
            if str(error).startswith(
                "Not a gzipped file"
            ):  # the first member was valid, so this is about what follows it
                raise DataError(f"{file}: it has other data after its gzipped data") from None
            raise


def _read_at_most(stream: IO[bytes], count: int) -> bytearray:
    """Up to `count` bytes, read in pieces, so that memory is allocated only for data that exists."""
    content = bytearray()
    while len(content) < count and (piece := stream.read(min(count - len(content), CHUNK))):
        content += piece
    return content


def _exactly(content: bytes | bytearray, wanted: int, file: Path) -> bytes | bytearray:
    if len(content) < wanted:
        raise DataError(f"{file}: truncated, {wanted - len(content):,} bytes are missing")
    if len(content) > wanted:
        raise DataError(f"{file}: it has more data after its {wanted:,} values")
    return content

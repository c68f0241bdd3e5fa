"""IDX, the format of MNIST's files: a magic number that tells type and axes, the sizes of the axes, then the values."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Annotated, Any, cast

import numpy as np
import torch
from pydantic import Field

from cnn.arguments import NonNegative, Positive
from runners.data.dataset import Examples, Preparation, Source, ValSplit
from runners.errors import DataError

UNSIGNED_BYTE = 0x08
CHUNK = 1 << 22
Array = np.ndarray[Any, Any]
Text = Annotated[str, Field(min_length=1)]
ClassNames = Annotated[list[str], Field(min_length=2)]


class Idx(Source):
    """A directory with training and test images and labels, named as MNIST's files are, gzipped or not."""

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
        self.path = Path(path)
        self.num_examples = num_examples
        self.val_examples = val_examples
        self.val_split = val_split
        self.split_seed = split_seed
        self.preparation = preparation
        self.class_names = class_names

    def read(self) -> tuple[Examples, Examples]:
        if not self.path.is_dir():
            raise DataError(f"data.path: there is no directory {self.path}")
        train, test = (self._read_pair(prefix) for prefix in ("train", "t10k"))
        if train.images.shape[1:] != test.images.shape[1:]:
            shapes = " and ".join(str(list(examples.images.shape[1:])) for examples in (train, test))
            raise DataError(f"{self.path}: training and test images have different shapes, {shapes}")
        return train, test

    def _read_pair(self, prefix: str) -> Examples:
        images_file, images = self._read(prefix, "images")
        labels_file, labels = self._read(prefix, "labels")
        if images.ndim not in (3, 4):
            raise DataError(f"{images_file}: {images.ndim} axes, images have 3 (count, height, width), volumes 4")
        if labels.ndim != 1:
            raise DataError(f"{labels_file}: {labels.ndim} axes, labels have 1")
        if len(images) != len(labels):
            raise DataError(f"{images_file} holds {len(images)} images, {labels_file.name} {len(labels)} labels")
        if not images.size:
            raise DataError(f"{images_file}: holds no images, its axes are {list(images.shape)}")
        return Examples(torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64)))

    def _read(self, prefix: str, content: str) -> tuple[Path, Array]:
        stems = [f"{prefix}-{content}{dot}idx*-ubyte{end}" for dot in "-." for end in ("", ".gz")]
        found = [file for stem in stems for file in sorted(self.path.glob(stem)) if file.is_file()]
        if not found:
            axes = {"images": 3, "labels": 1}[content]
            raise DataError(f"{self.path}: there is no {prefix}-{content}-idx{axes}-ubyte, with or without .gz")
        return found[0], read_idx(found[0])


class Mnist(Idx):
    """The handwritten digits that ship with the project."""

    known_shape = (1, 28, 28)
    known_classes = 10

    def __init__(
        self,
        num_examples: Positive | None = None,
        val_examples: Positive = 5000,
        val_split: ValSplit = "train",
        split_seed: NonNegative = 0,
    ) -> None:
        here = Path(__file__).parent / "mnist"
        super().__init__(str(here), num_examples, val_examples, val_split, split_seed, preparation="digit")


def read_idx(file: Path) -> Array:
    """The array in an IDX file of unsigned bytes. Raises DataError for anything else, and never reads past its end."""
    try:
        with _open(file) as stream:
            magic = _exactly(stream.read(4), 4, file)
            zeros, kind, axes = struct.unpack(">HBB", magic)
            if zeros or kind != UNSIGNED_BYTE or not 1 <= axes <= 4:
                raise DataError(f"{file}: begins with {magic.hex()}, IDX files of bytes with 0000080 and 1 to 4")
            shape: Sequence[int] = struct.unpack(f">{axes}I", _exactly(stream.read(4 * axes), 4 * axes, file))
            count = math.prod(shape)
            values = _exactly(_read_at_most(stream, count + 1), count, file)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: can't be read: {error}") from None
    return np.frombuffer(values, np.uint8).reshape(shape).copy()


def _open(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")


def _read_at_most(stream: IO[bytes], count: int) -> bytes:
    """Up to `count` bytes, in pieces: memory follows what is there and not what a header promises."""
    pieces, left = [], count
    while left and (piece := stream.read(min(left, CHUNK))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _exactly(content: bytes, wanted: int, file: Path) -> bytes:
    if len(content) < wanted:
        raise DataError(f"{file}: cut short, {wanted - len(content)} bytes are missing")
    if len(content) > wanted:
        raise DataError(f"{file}: goes on after its {wanted} values")
    return content

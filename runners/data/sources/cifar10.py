"""CIFAR-10 in its binary version: each record is a class and three planes of 32x32 pixels (Krizhevsky 2009)."""

from __future__ import annotations

import math
import tarfile
from pathlib import Path
from typing import IO

import numpy as np
import torch

from cnn.arguments import NonNegative, Positive, Text
from runners.data.dataset import Examples, Source, ValSplit, reading
from runners.data.download import Remote, cache_folder, fetch, verify
from runners.errors import DataError
from runners.files.paths import user_path

ARCHIVE = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    170052171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
FOLDER = "cifar-10-batches-bin"
TRAIN, TEST = [f"data_batch_{number}.bin" for number in range(1, 6)], "test_batch.bin"
IMAGES, SHAPE = 10000, (3, 32, 32)
"""The content of each of the six files."""
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Cifar10(Source):
    """The official files, in `path` or in the cache folder: the unpacked folder of the archive, or the archive itself.

    The archive is downloaded if it is missing.
    """

    kind = "cifar10"

    known_shape = SHAPE
    known_classes = len(CLASSES)
    class_names = CLASSES

    def __init__(
        self,
        path: Text | None = None,
        num_examples: Positive | None = None,
        val_examples: Positive = 5000,
        val_split: ValSplit = "train",
        split_seed: NonNegative = 0,
    ) -> None:
        super().__init__(num_examples, val_examples, val_split, split_seed)
        self.path = user_path(path) if path else cache_folder("cifar10")

    def read(self) -> tuple[Examples, Examples]:
        archive = self.path / ARCHIVE.name
        with reading(archive):
            if (self.path / FOLDER).is_dir():
                files = _read_folder(self.path / FOLDER)
            else:
                fetch([ARCHIVE], self.path)
                verify(ARCHIVE, archive)
                files = _read_archive(archive)
        train = [files[name] for name in TRAIN]
        images, labels = torch.cat([part.images for part in train]), torch.cat([part.targets for part in train])
        return Examples(images, labels), files[TEST]


def _read_folder(folder: Path) -> dict[str, Examples]:
    files = {}
    for name in [*TRAIN, TEST]:
        file = folder / name
        if file.exists() and not file.is_file():
            raise DataError(f"{file}: not a file")
        with file.open("rb") as stream:
            files[name] = _examples(stream, str(file))
    return files


def _read_archive(archive: Path) -> dict[str, Examples]:
    """The archive's files, read as a stream: nothing is unpacked to disk."""
    files = {}
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            stream = tar.extractfile(member) if member.isreg() else None
            if stream and folder == FOLDER and name in (*TRAIN, TEST):
                files[name] = _examples(stream, f"{archive}: {member.name}")
    for name in [*TRAIN, TEST]:
        if name not in files:
            raise DataError(f"{archive}: it has no file {FOLDER}/{name}")
    return files


def _examples(stream: IO[bytes], place: str) -> Examples:
    """The images and classes in one of the files. At most one byte more than expected is read."""
    size = 1 + math.prod(SHAPE)
    content = stream.read(IMAGES * size + 1)
    if len(content) != IMAGES * size:
        problem = "it is longer" if len(content) > IMAGES * size else f"it ends after {len(content):,} bytes"
        raise DataError(f"{place}: {problem}, but {IMAGES:,} images take {IMAGES * size:,}")
    records = np.frombuffer(content, np.uint8).reshape(IMAGES, size)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASSES):
        raise DataError(f"{place}: it has labels up to {labels.max()}, but the classes are 0 to {len(CLASSES) - 1}")
    return Examples(torch.from_numpy(records[:, 1:].reshape(IMAGES, *SHAPE).copy()), torch.from_numpy(labels))

"""Datasets of a few images in the files that the large ones have, for tests of their readers."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runners.data.download import Remote
from runners.data.sources import cifar10, fashion_mnist
from runners.data.sources.idx import header
from tests.runners.conftest import Array
from tools.small_runs import SMALL_MODEL, stripes

TEN_CLASSES = SMALL_MODEL.replace("out_features:3", "out_features:10")
NOWHERE = "http://127.0.0.1:9"
"""An address that refuses every connection."""


def remote(address: str, name: str, content: bytes) -> Remote:
    return Remote(f"{address}/{name}", len(content), hashlib.sha256(content).hexdigest())


def fashion_files(monkeypatch: pytest.MonkeyPatch, address: str = NOWHERE) -> dict[str, bytes]:
    """Four gzipped files by their names, which fashion_mnist takes for the official ones from now on."""
    generator = np.random.default_rng(5)
    files = {}
    for (prefix, content), official in fashion_mnist.FILES.items():
        count = {"train": 80, "t10k": 40}[prefix]
        values = generator.integers(0, 256, (count, 28, 28)) if content == "images" else np.arange(count) % 10
        plain = header(values.shape) + values.astype(np.uint8).tobytes()
        files[official.name] = gzip.compress(plain)
        key = (prefix, content)
        monkeypatch.setitem(fashion_mnist.FILES, key, remote(address, official.name, files[official.name]))
        monkeypatch.setitem(fashion_mnist.UNPACKED, key, hashlib.sha256(plain).hexdigest())
    return files


def cifar_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Six files of 20 images each by their names."""
    monkeypatch.setattr(cifar10, "IMAGES", 20)
    generator = np.random.default_rng(6)
    files = {}
    for name in [*cifar10.TRAIN, cifar10.TEST]:
        records = generator.integers(0, 256, (20, 1 + 3 * 32 * 32), np.uint8)
        records[:, 0] = np.arange(20) % 10
        files[name] = records.tobytes()
    return files


def cifar_archive(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], address: str = NOWHERE) -> bytes:
    """Such files as an archive, which cifar10 takes for the official one from now on."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {**files, "readme.html": b"<html>"}.items():
            member = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    content = packed.getvalue()
    monkeypatch.setattr(cifar10, "ARCHIVE", remote(address, cifar10.ARCHIVE.name, content))
    return content


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_arrays(folder: Path, targets: Callable[[Array, Array], Array] | None = None) -> Path:
    """The striped images of the `striped` IDX files, with their classes, or targets made of images and classes."""
    folder.mkdir(exist_ok=True)
    for split, count, seed in (("train", 150, 1), ("test", 60, 2)):
        images, classes = stripes(count, (10, 10), seed)
        np.save(folder / f"{split}_images.npy", images.astype(np.uint8))
        np.save(folder / f"{split}_targets.npy", targets(images, classes) if targets else classes)
    return folder


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Nobody may list this folder any more, as if it were another user's; of root, no `chmod` could ask that."""
    scandir = os.scandir

    def refusing(path: Any = ".") -> Any:
        if str(path) == str(folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def picture(file: Path, values: Array) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(file)


def pictures(folder: Path, classes: dict[str, int], shape: tuple[int, ...] = (12, 15, 3)) -> Path:
    """So many pictures of each class, a class a colour."""
    generator = np.random.default_rng(7)
    for number, (name, count) in enumerate(classes.items()):
        for index in range(count):
            values = generator.integers(0, 60, shape)
            values[..., number % 3 if len(shape) == 3 else slice(None)] += 60 * (number + 1)
            picture(folder / name / f"{index}.png", values)
    return folder

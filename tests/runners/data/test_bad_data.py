"""Every kind of broken IDX file ends in exit code 2, one line that names the file, and no run directory."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runners.data.dataset import MAX_BYTES
from runners.data.sources import idx
from runners.data.sources.idx import Idx, header, read_idx
from runners.errors import DataError
from tests.runners.conftest import Run
from tests.runners.data.small_data import TEN_CLASSES
from tools.small_runs import stripes, write_dataset, write_idx

Damage = Callable[[Path], object]

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def content(new: bytes) -> Damage:
    return lambda file: file.write_bytes(new)


def changed(change: Callable[[bytes], bytes]) -> Damage:
    return lambda file: file.write_bytes(change(file.read_bytes()))


def packed(change: Callable[[bytes], bytes]) -> Damage:
    """The right content behind gzip, and that changed."""
    return changed(lambda plain: change(gzip.compress(plain)))


def values(*shape: int) -> Damage:
    return lambda file: write_idx(file, np.zeros(shape))


def flipped(position: int) -> Callable[[bytes], bytes]:
    """Change all bits of one byte."""

    def flip(before: bytes) -> bytes:
        after = bytearray(before)
        after[position] ^= 0xFF
        return bytes(after)

    return flip


def bomb(start: bytes, size: int) -> bytes:
    """A gzip file that becomes a thousand times as large."""
    return gzip.compress(start + bytes(size), compresslevel=1)


def instead(make: Callable[[Path], object]) -> Damage:
    """Something else in place of the file."""

    def damage(file: Path) -> None:
        file.unlink()
        make(file)

    return damage


def far_too_many(axes: int, size: int) -> bytes:
    return struct.pack(f">HBB{axes}I", 0, 8, axes, *[size] * axes)


FAULTS: dict[str, tuple[str, Damage, str]] = {
    "no images": (IMAGES, Path.unlink, f"there is no {IMAGES}, with or without .gz"),
    "no labels": (LABELS, Path.unlink, f"there is no {LABELS}, with or without .gz"),
    "no test images": (TEST_IMAGES, Path.unlink, f"there is no {TEST_IMAGES}"),
    "no test labels": (TEST_LABELS, Path.unlink, f"there is no {TEST_LABELS}"),
    "empty": (IMAGES, content(b""), "truncated, 4 bytes are missing"),
    "text": (IMAGES, content(b"hello, world"), "begins with 68656c6c, but IDX files of bytes begin with 0000080"),
    "a page of the web": (TEST_IMAGES, content(b"<!DOCTYPE html><html></html>"), "begins with 3c21444f"),
    "a picture": (LABELS, content(b"\x89PNG\r\n\x1a\n" + bytes(99)), "begins with 89504e47"),
    "floats": (IMAGES, content(b"\0\0\x0d\x03" + bytes(12)), "begins with 00000d03"),
    "bytes in the other order": (IMAGES, content(b"\x03\x08\0\0" + bytes(12)), "begins with 03080000"),
    "no axes": (IMAGES, content(b"\0\0\x08\0"), "begins with 00000800"),
    "five axes": (IMAGES, values(1, 1, 1, 1, 1), "begins with 00000805"),
    "one byte": (TEST_LABELS, content(b"\0"), "truncated, 3 bytes are missing"),
    "header cut": (IMAGES, changed(lambda plain: plain[:10]), "truncated, 6 bytes are missing"),
    "header alone": (IMAGES, changed(lambda plain: plain[:16]), "truncated, 15,000 bytes are missing"),
    "cut short": (IMAGES, changed(lambda plain: plain[:-1]), "truncated, 1 bytes are missing"),
    "labels cut short": (TEST_LABELS, changed(lambda plain: plain[:-7]), "truncated, 7 bytes are missing"),
    "too long": (IMAGES, changed(lambda plain: plain + b"x"), "it has more data after its 15,000 values"),
    "labels too long": (LABELS, changed(lambda plain: plain + plain), "it has more data after its 150 values"),
    "promises exabytes": (IMAGES, content(far_too_many(4, 2**32 - 1)), "at most 4,294,967,296 are allowed"),
    "promises 8 gigabytes": (
        IMAGES,
        content(far_too_many(3, 2**11)),
        "its header claims 8,589,934,592 values, [2048, 2048, 2048]",
    ),
    "promises 4 gigabytes": (
        LABELS,
        content(far_too_many(1, 2**32 - 1)),
        f"150 images, but {LABELS} has 4294967295 labels",
    ),
    "nothing, exabytes wide": (
        IMAGES,
        content(header((0, 2**32 - 1, 2**32 - 1))),
        "it has no values, its shape is [0, ",
    ),
    "no labels in it": (LABELS, values(0), "it has no values, its shape is [0]"),
    "no pixels": (IMAGES, values(150, 0, 10), "it has no values, its shape is [150, 0, 10]"),
    "no columns": (TEST_IMAGES, values(60, 10, 0), "it has no values, its shape is [60, 10, 0]"),
    "fewer labels": (LABELS, values(3), f"has 150 images, but {LABELS} has 3 labels"),
    "fewer images": (TEST_IMAGES, values(59, 10, 10), f"has 59 images, but {TEST_LABELS} has 60 labels"),
    "labels of two axes": (LABELS, values(150, 2), "it has 2 axes, but labels have 1"),
    "images of one axis": (IMAGES, values(3), "it has 1 axes, but images have 3 (count, height, width), volumes 4"),
    "labels in place of images": (IMAGES, content(header((150,)) + bytes(150)), "it has 1 axes, but images have 3"),
    "gzip: empty": (IMAGES, content(gzip.compress(b"")), "truncated, 4 bytes are missing"),
    "gzip: two bytes": (IMAGES, content(b"\x1f\x8b"), "Compressed file ended before the end-of-stream marker"),
    "gzip: cut short": (IMAGES, packed(lambda gz: gz[:-500]), "Compressed file ended before the end-of-stream marker"),
    "gzip: no checksum": (LABELS, packed(lambda gz: gz[:-8]), "Compressed file ended before the end-of-stream marker"),
    "gzip: wrong checksum": (IMAGES, packed(flipped(-8)), "CRC check failed"),
    "gzip: wrong length": (IMAGES, packed(flipped(-1)), "Incorrect length of data"),
    "gzip: broken inside": (IMAGES, content(gzip.compress(b"")[:10] + b"\xff" * 30), "while decompressing data"),
    "gzip: unknown method": (IMAGES, packed(flipped(2)), "Unknown compression method"),
    "gzip: something behind": (
        LABELS,
        packed(lambda gz: gz + b"behind"),
        "it has other data after its gzipped data",
    ),
    "gzip: more behind": (LABELS, packed(lambda gz: gz + gz), "it has more data after its 150 values"),
    "gzip in gzip": (IMAGES, packed(gzip.compress), "begins with 1f8b08"),
    "gzip: bomb": (IMAGES, content(bomb(header((150, 10, 10)), 2**25)), "it has more data after its 15,000 values"),
    "gzip: bomb as promised": (
        IMAGES,
        content(bomb(far_too_many(3, 2**11), 2**25)),
        "its header claims 8,589,934,592 values",
    ),
    "a directory": (IMAGES, instead(Path.mkdir), "not a file"),
    "a pipe": (LABELS, instead(os.mkfifo), "not a file"),
    "a link to nothing": (IMAGES, instead(lambda file: file.symlink_to("nothing")), "not a file"),
    "a failing disk": (IMAGES, instead(lambda file: file.symlink_to("/proc/self/mem")), "Input/output error"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_files(fault: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dataset(tmp_path / "data")
    name, damage, expected = FAULTS[fault]
    damage(folder / name)
    refused(run, folder, capsys, name, expected)


def refused(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str], name: str, expected: str, *overrides: str
) -> None:
    """The command ends as documented: exit code 2, one line with the file's name, and nothing written."""
    before = {file: file.lstat().st_mtime_ns for file in Path().rglob("*")}
    assert run(f"data.path={folder}", *overrides) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert str(folder) in err
    assert name in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert out == ""
    assert before == {file: file.lstat().st_mtime_ns for file in Path().rglob("*")}


def test_all_of_it_empty(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, shape in ((IMAGES, (0, 10, 10)), (LABELS, (0,))):
        write_idx(folder / name, np.zeros(shape))
    refused(run, folder, capsys, IMAGES, "it has no values, its shape is [0, 10, 10]")


def test_other_images_for_the_test(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dataset(tmp_path / "data")
    write_idx(folder / TEST_IMAGES, np.zeros((60, 9, 10)))
    refused(run, folder, capsys, "", "training and test images have different shapes, [1, 10, 10] and [1, 9, 10]")


def test_labels_without_a_name(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dataset(tmp_path / "data")
    write_idx(folder / TEST_LABELS, np.full(60, 7))
    told = "data.class_names: 3 names for labels up to 7, give 8"
    refused(run, folder, capsys, TEST_LABELS, told, "data.class_names=[a,b,c]")


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        (LABELS, lambda file: write_idx(file, np.full(150, 10)), "it has labels up to 10, but the classes are 0 to 9"),
        (
            TEST_LABELS,
            lambda file: write_idx(file, np.full(60, 255)),
            "it has labels up to 255, but the classes are 0 to 9",
        ),
        (IMAGES, values(150, 28, 29), "its images are [28, 29], not [28, 28]"),
        (TEST_IMAGES, values(60, 1, 28, 28), "its images are [1, 28, 28], not [28, 28]"),
    ],
)
def test_digits_that_are_not_mnists(
    name: str,
    damage: Damage,
    expected: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The files that ship with the project, damaged."""
    monkeypatch.setattr(idx, "__file__", str(tmp_path / "sources" / "idx.py"))
    damage(write_dataset(tmp_path / "mnist", (28, 28)) / name)
    assert run("data=mnist", TEN_CLASSES, "data.val_examples=30") == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'mnist' / name}: {expected}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mnist"]


@pytest.mark.parametrize("source", ["idx", "folder", "arrays", "fashion_mnist", "cifar10"])
@pytest.mark.parametrize("path", ["a" * 300, "file", "file/below", "/dev/null"])
def test_bad_paths(source: str, path: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    layers = [TEN_CLASSES] if source in ("fashion_mnist", "cifar10") else []
    assert run(f"data={source}", f"data.path={path}", "data.val_examples=30", *layers) == 2
    err = capsys.readouterr().err
    assert path in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dataset(tmp_path / "data")
    (folder / IMAGES).chmod(0)
    refused(run, folder, capsys, IMAGES, "can't be read: Permission denied")


@pytest.mark.parametrize(
    "start",
    [header((4,)), header((2**12, 2**10, 2**10)), far_too_many(1, 2**30), far_too_many(4, 2**32 - 1)],
    ids=["small", "at the limit", "larger than it is", "petabytes"],
)
def test_memory_follows_what_is_there_and_not_what_is_promised(start: bytes, tmp_path: Path) -> None:
    """Bombs of 200 MB behind four values, and of 8 MB behind headers that promise more."""
    file = tmp_path / "bomb"
    with gzip.open(file, "wb", compresslevel=1) as stream:
        stream.write(start)
        for _ in range(200 if start == header((4,)) else 8):
            stream.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="bomb: "):
            read_idx(file)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [LABELS, IMAGES])
def test_counts_are_compared_before_anything_is_unpacked(name: str, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data")
    shape = (2**27,) if name == LABELS else (2**20, 10, 10)
    (folder / name).write_bytes(bomb(header(shape), 2**27))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"{IMAGES} has .* images, but {LABELS} has .* labels"):
            Idx(str(folder)).read()
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_the_limit_is_what_it_says() -> None:
    assert MAX_BYTES == 4 * 2**30 == 2**12 * 2**10 * 2**10


def test_gzip_is_told_by_content(tmp_path: Path) -> None:
    images, labels = stripes(150, (10, 10), 1)
    folder = write_dataset(tmp_path / "data")
    (folder / IMAGES).write_bytes(gzip.compress((folder / IMAGES).read_bytes()))
    (folder / LABELS).rename(folder / f"{LABELS.replace('-idx', '.idx')}.gz")
    train, _ = Idx(str(folder)).read()
    assert np.array_equal(train.images[:, 0], images)
    assert np.array_equal(train.targets, labels)


def test_the_plain_file_goes_before_the_gzipped_one(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data")
    write_idx(folder / f"{LABELS}.gz", np.zeros(150))
    train, _ = Idx(str(folder)).read()
    assert train.targets.max() == 2
    (folder / LABELS).unlink()
    train, _ = Idx(str(folder)).read()
    assert train.targets.max() == 0

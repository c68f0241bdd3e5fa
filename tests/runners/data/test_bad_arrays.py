"""Everything that arrays in NumPy's files can have wrong."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

from runners.data.sources.arrays import Arrays, read_array
from runners.errors import DataError
from tests.runners.conftest import Array, Run
from tests.runners.data.small_data import write_arrays


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "arrays")


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    """A file with this header and no values."""
    content = text.encode().ljust(118)
    return npy.MAGIC_PREFIX + bytes(version) + len(content).to_bytes(2 if version == (1, 0) else 4, "little") + content


def described(descr: str, shape: str) -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")


def saved(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    return stream.getvalue()


class Trap:
    """Pickled, it would create a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("trapped"),)


IMAGES, TARGETS, TEST_IMAGES, TEST_TARGETS = (f"{s}_{c}.npy" for s in ("train", "test") for c in ("images", "targets"))
BYTES = np.zeros((150, 10, 10), np.uint8)
WHOLE, HALVES = np.zeros(150, np.int64), np.zeros(150)
FAULTS: dict[str, tuple[str, bytes | None, str]] = {
    "no images": (IMAGES, None, "there is no such file"),
    "no test targets": (TEST_TARGETS, None, "there is no such file"),
    "empty": (TARGETS, b"", "it begins with '', but .npy files begin with 934e554d5059"),
    "an archive": (IMAGES, b"PK\x03\x04" + bytes(99), "it begins with '504b03040000', but .npy files begin with"),
    "a pickle": (TARGETS, pickle.dumps(Trap()), "but .npy files begin with 934e554d5059"),
    "magic alone": (IMAGES, npy.MAGIC_PREFIX, "its header can't be read: EOF"),
    "unknown version": (IMAGES, npy.MAGIC_PREFIX + b"\x07\x07" + bytes(99), "its header can't be read: (7, 7)"),
    "names of fields": (TARGETS, header("{}", (3, 0)), "its header can't be read: (3, 0)"),
    "header cut": (IMAGES, saved(BYTES)[:40], "its header can't be read: EOF"),
    "a header of zeros": (IMAGES, header("\0" * 20), "its header can't be read"),
    "a header that isn't one": (IMAGES, header("__import__('os').mkdir('trapped')"), "its header can't be read"),
    "a header that isn't text": (IMAGES, header('"""('), "its header can't be read"),
    "a header without a shape": (
        IMAGES,
        header("{'descr': '|u1', 'fortran_order': False}"),
        "its header can't be read",
    ),
    "no type": (IMAGES, described("'|?9'", "(150, 10, 10)"), "its header can't be read"),
    "nested deeply": (IMAGES, header("(" * 110), "its header can't be read"),
    "negative": (IMAGES, described("'|u1'", "(-150, -10, 10)"), "it has no values, its shape is [-150, -10, 10]"),
    "no examples": (IMAGES, saved(BYTES[:0]), "it has no values, its shape is [0, 10, 10]"),
    "no pixels": (IMAGES, saved(BYTES[:, :0]), "it has no values, its shape is [150, 0, 10]"),
    "exabytes": (IMAGES, described("'|u1'", f"({2**62}, 9, 9)"), "at most 4,294,967,296 are allowed"),
    "8 gigabytes": (TARGETS, described("'<f8'", f"({2**30},)"), "its header claims 8,589,934,592 bytes, [1073741824]"),
    "cut short": (IMAGES, saved(BYTES)[:-1], "truncated, 1 bytes are missing"),
    "header alone": (TARGETS, described("'<i8'", "(150,)"), "truncated, 1,200 bytes are missing"),
    "too long": (TARGETS, saved(WHOLE) + b"x", "it has more data after its 150 values"),
    "objects": (TARGETS, saved(np.array([Trap()] * 150)), "its values are Python objects, which are not read"),
    "fields": (TARGETS, saved(np.zeros(150, "i4,f8")), "its values are [('f0', '<i4'), ('f1', '<f8')], targets have"),
    "texts": (TARGETS, saved(np.array(["cat"] * 150)), "its values are <U3, targets have to be integers (classes) or"),
    "truths": (TARGETS, saved(WHOLE > 0), "its values are bool, targets have to be integers"),
    "complex": (TARGETS, saved(WHOLE * 1j), "its values are complex128, targets have to be integers"),
    "long doubles": (TARGETS, saved(WHOLE.astype(np.longdouble)), "targets have to be integers (classes) or floats of"),
    "floats as images": (IMAGES, saved(BYTES / 255), "its values are float64, images have to be uint8"),
    "signed images": (TEST_IMAGES, saved(BYTES.astype(np.int8)), "its values are int8, images have to be uint8"),
    "images of two axes": (IMAGES, saved(BYTES[0]), "its shape is [10, 10], images have to be [count, H, W], [count,"),
    "images of six axes": (TEST_IMAGES, saved(BYTES[:, None, None, None]), "its shape is [150, 1, 1, 1, 10, 10]"),
    "one number": (TARGETS, saved(np.float32(1)), "its shape is [], integers (classes) have to be [count], floats"),
    "vectors of integers": (
        TARGETS,
        saved(WHOLE[:, None]),
        "its shape is [150, 1], integers (classes) have to be [count]",
    ),
    "fewer targets": (TARGETS, saved(WHOLE[:3]), f"has 150 images, but {TARGETS} has 3 targets"),
    "fewer images": (TEST_IMAGES, saved(BYTES[:59]), f"has 59 images, but {TEST_TARGETS} has 60 targets"),
    "other test images": (
        TEST_IMAGES,
        saved(BYTES[:60, 1:]),
        "training and test images have different shapes, [10, 10] and [9, 10]",
    ),
    "other test targets": (
        TEST_TARGETS,
        saved(np.zeros((60, 2))),
        "training and test targets have different shapes, [] and [2]",
    ),
    "values and classes": (
        TARGETS,
        saved(HALVES),
        "training targets are float64, test targets int64, both have to be integers (classes) or both floats (values)",
    ),
    "classes below 0": (TARGETS, saved(WHOLE - 1), "its integers are -1 to -1, but classes are 0 to at most 65,535"),
    "far too many classes": (
        TEST_TARGETS,
        saved(np.full(60, 2**63, np.uint64)),
        "its integers are 9223372036854775808 to 9223372036854775808, but classes are 0 to at most 65,535",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_files(fault: str, run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line that names the file or the folder, and nothing written or executed."""
    name, content, expected = FAULTS[fault]
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert run("data=arrays", f"data.path={folder}", "data.val_examples=30") == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert err.startswith(f"error: {folder}")
    assert name in err or "test" in err
    assert len(err.splitlines()) == 1
    assert out == ""
    assert [path.name for path in Path().iterdir()] == ["arrays"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_not_finite(value: float, tmp_path: Path) -> None:
    def values(images: Array, classes: Array) -> Array:
        numbers = np.zeros((len(classes), 2))
        numbers[3:5, 1] = value
        return numbers

    with pytest.raises(DataError, match=r"train_targets.npy: 2 of its 300 values are NaN, infinite or too large"):
        Arrays(str(write_arrays(tmp_path, values))).read()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Path.mkdir, "not a file"),
        (os.mkfifo, "not a file"),
        (lambda file: file.symlink_to("nothing"), "there is no such file"),
        (lambda file: file.symlink_to("/proc/self/mem"), "Input/output error"),
    ],
)
def test_what_is_no_file(make: Callable[[Path], object], told: str, folder: Path) -> None:
    (folder / IMAGES).unlink()
    make(folder / IMAGES)
    with pytest.raises(DataError, match=f"{IMAGES}: .*{told}"):
        Arrays(str(folder)).read()


def test_headers_of_all_files_come_before_any_values(folder: Path) -> None:
    """Sparse files of 2 GB, the last of which is too short."""
    for split in ("train", "test"):
        np.save(folder / f"{split}_targets.npy", np.zeros(2**21, np.uint8))
        file = folder / f"{split}_images.npy"
        file.write_bytes(described("'|u1'", f"({2**21}, 32, 32)"))
        os.truncate(file, file.stat().st_size + 2**31 - (split == "test"))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"test_images.npy: truncated, 1 bytes are missing"):
            Arrays(str(folder)).read()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_damaged_headers_are_refused_or_read(tmp_path: Path) -> None:
    """Every byte of a header changed: nothing but DataError, and what can still be read has as many values."""
    content = saved(np.arange(150, dtype=np.uint8))
    file = tmp_path / "x.npy"
    for position in range(128):
        for value in (0, 40, 45, 48, 57, 255):
            file.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
            with suppress(DataError):
                assert read_array(file).nbytes == 150

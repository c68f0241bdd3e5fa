"""Checkpoints: read as data, never executed; whole or not there."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runners import checkpoint
from runners.errors import CheckpointError

GOOD = {"weights": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, "epoch": 3, "names": ["x", None, True, 1.5]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "last.pkl", GOOD)
    return tmp_path / "last.pkl"


def test_what_is_saved_is_loaded(file: Path) -> None:
    content = checkpoint.load(file)
    assert content["epoch"] == 3
    assert content["names"] == ["x", None, True, 1.5]
    assert np.array_equal(content["weights"]["a"], GOOD["weights"]["a"])  # type: ignore[index, call-overload]
    assert content["weights"]["a"].flags.writeable
    assert [child.name for child in file.parent.iterdir()] == ["last.pkl"]


@pytest.mark.parametrize("dtype", checkpoint.DTYPES)
def test_every_allowed_type_and_scalar_and_empty_arrays(dtype: str, tmp_path: Path) -> None:
    arrays = [np.ones((2, 0), dtype), np.array(1, dtype), np.ones((3, 1, 2), dtype)]
    checkpoint.save(tmp_path / "x.pkl", {"arrays": arrays})
    for found, expected in zip(checkpoint.load(tmp_path / "x.pkl")["arrays"], arrays, strict=True):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert np.array_equal(found, expected)


def test_names_of_both_numpy_1_and_2_are_read(file: Path) -> None:
    """Whichever this numpy writes is rewritten as the other: one name and the length of the frame around it."""
    content = file.read_bytes()
    names = [b"\x8c\x15numpy.core.multiarray", b"\x8c\x16numpy._core.multiarray"]
    written, other = names if names[0] in content else reversed(names)
    rewritten = content.replace(written, other)
    length = int.from_bytes(content[3:11], "little") + len(rewritten) - len(content)
    file.write_bytes(rewritten[:3] + length.to_bytes(8, "little") + rewritten[11:])
    assert rewritten != content
    assert np.array_equal(checkpoint.load(file)["weights"]["a"], GOOD["weights"]["a"])  # type: ignore[index, call-overload]


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def attacks(mark: Path) -> dict[str, bytes]:
    command = f"touch {mark}"
    objects: dict[str, Any] = {
        "os.system": Evil(os.system, command),
        "eval": Evil(eval, f"open({str(mark)!r}, 'w')"),
        "exec": Evil(exec, f"open({str(mark)!r}, 'w')"),
        "open": Evil(open, str(mark), "w"),
        "subprocess": Evil(subprocess.call, ["touch", str(mark)]),
        "getattr": Evil(getattr, "x", "upper"),
        "import": Evil(__import__, "os"),
        "path": Path("x"),
        "torch": torch.zeros(2),
        "ordered": OrderedDict(a=1),
        "set": {1, 2},
        "complex": 1j,
        "bytes": b"raw",
        "object array": np.array([Evil(os.system, command), 1], dtype=object),
        "structured array": np.zeros(2, dtype=[("a", "f4")]),
        "dates": np.zeros(2, "M8[s]"),
        "big endian": np.zeros(2, ">f4"),
        "fortran": np.asfortranarray(np.ones((2, 3), np.float32)),
        "numpy scalar": np.float64(1.0),
        "keys that are no text": {1: 2},
    }
    wrapped = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION}
    files = {name: pickle.dumps({**wrapped, "x": value}, protocol=4) for name, value in objects.items()}
    files["old protocol"] = b"cos\nsystem\n(S'" + command.encode() + b"'\ntR."
    files["instance"] = b"(S'" + command.encode() + b"'\nios\nsystem\n."
    files["build on a class"] = b"\x80\x04cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb."
    files["array without state"] = pickle.dumps(wrapped, 4)[:-2] + b"X\x01\x00\x00\x00xcnumpy\nndarray\n)\x81su."
    files["dtype of a list"] = b"\x80\x04cnumpy\ndtype\n](\x8c\x02f4e\x85R."
    return files


@pytest.mark.parametrize("name", attacks(Path("mark")))
def test_nothing_of_a_strangers_file_runs(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    file = tmp_path / "evil.pkl"
    file.write_bytes(attacks(mark)[name])
    with pytest.raises(CheckpointError, match=r"evil\.pkl: "):
        checkpoint.load(file)
    assert not mark.exists()


def test_arrays_are_checked_before_they_are_made(file: Path) -> None:
    """A shape that asks for more bytes than the file holds is refused."""
    content = file.read_bytes()
    lied = content.replace(b"K\x02K\x03\x86", b"K\xffK\xff\x86")
    assert lied != content
    file.write_bytes(lied)
    with pytest.raises(CheckpointError, match="bytes don't fit its shape"):
        checkpoint.load(file)


def test_every_truncation_is_refused(file: Path) -> None:
    content = file.read_bytes()
    for end in range(len(content)):
        file.write_bytes(content[:end])
        with pytest.raises(CheckpointError):
            checkpoint.load(file)


def test_other_formats_and_versions_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.pkl"
    file.write_bytes(pickle.dumps({"format": "theirs"}, 4))
    with pytest.raises(CheckpointError, match="a pickle, but not a checkpoint of this project"):
        checkpoint.load(file)
    file.write_bytes(pickle.dumps({"format": checkpoint.FORMAT, "version": 99}, 4))
    with pytest.raises(CheckpointError, match="has format version 99, this program reads 1"):
        checkpoint.load(file)
    file.write_bytes(b"not a pickle")
    with pytest.raises(CheckpointError, match="not a checkpoint, or a broken one"):
        checkpoint.load(file)
    with pytest.raises(CheckpointError, match="can't be read"):
        checkpoint.load(tmp_path / "missing.pkl")


def test_a_failed_save_keeps_what_was_there(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpoint.save(file, {"x": lambda: None})
    (file.parent / f".{file.name}.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        checkpoint.save(file, GOOD)
    assert file.read_bytes() == before


def test_locate(tmp_path: Path, file: Path) -> None:
    assert checkpoint.locate(file) == file
    with pytest.raises(
        CheckpointError, match=r"not a run directory with a checkpoint: there is no checkpoints/best\.pkl"
    ):
        checkpoint.locate(tmp_path)

"""Checkpoints: read as data, never executed; whole or not there."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cnn import build_model
from cnn.losses import CrossEntropy
from cnn.optimizers import SGD
from runners.cli import evaluate, predict
from runners.config import schema
from runners.errors import CheckpointError
from runners.files import checkpoint, plain_pickle, safe_unpickler
from runners.files.content import Checkpoint
from runners.tasks.registry import saved_task
from runners.training import snapshot
from runners.training.progress import Progress
from tests.classifier import classifier
from tests.runners.outcomes import COLUMNS

GOOD = {"weights": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, "epoch": 3, "names": ["x", None, True, 1.5]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    plain_pickle.write(tmp_path / "last.pkl", GOOD)
    return tmp_path / "last.pkl"


def pickled(file: Path) -> bytes:
    """A file without its trailer."""
    return file.read_bytes()[: -plain_pickle.TRAILER.size]


def test_what_is_saved_is_loaded(file: Path) -> None:
    content = plain_pickle.read(file)
    assert content["epoch"] == 3
    assert content["names"] == ["x", None, True, 1.5]
    assert np.array_equal(content["weights"]["a"], GOOD["weights"]["a"])  # type: ignore[index, call-overload]
    assert content["weights"]["a"].flags.writeable
    assert [child.name for child in file.parent.iterdir()] == ["last.pkl"]


@pytest.mark.parametrize("dtype", safe_unpickler.DTYPES)
def test_every_allowed_type_and_scalar_and_empty_arrays(dtype: str, tmp_path: Path) -> None:
    arrays = [np.ones((2, 0), dtype), np.array(1, dtype), np.ones((3, 1, 2), dtype)]
    plain_pickle.write(tmp_path / "x.pkl", {"arrays": arrays})
    for found, expected in zip(plain_pickle.read(tmp_path / "x.pkl")["arrays"], arrays, strict=True):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert np.array_equal(found, expected)


def test_names_of_both_numpy_1_and_2_are_read(file: Path) -> None:
    """Whichever this numpy writes is rewritten as the other: one name and the length of the frame around it."""
    content = pickled(file)
    names = [b"\x8c\x15numpy.core.multiarray", b"\x8c\x16numpy._core.multiarray"]
    written, other = names if names[0] in content else reversed(names)
    rewritten = content.replace(written, other)
    length = int.from_bytes(content[3:11], "little") + len(rewritten) - len(content)
    file.write_bytes(plain_pickle.seal(rewritten[:3] + length.to_bytes(8, "little") + rewritten[11:]))
    assert rewritten != content
    assert np.array_equal(plain_pickle.read(file)["weights"]["a"], GOOD["weights"]["a"])  # type: ignore[index, call-overload]


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
    shared: list[Any] = []
    cycle: list[Any] = []
    cycle.append(cycle)
    objects |= {"one list in two places": [shared, shared], "a list in itself": cycle, "tuple": (1, 2)}
    files = {name: pickle.dumps({"x": value}, protocol=4) for name, value in objects.items()}
    files["old protocol"] = b"cos\nsystem\n(S'" + command.encode() + b"'\ntR."
    files["instance"] = b"(S'" + command.encode() + b"'\nios\nsystem\n."
    files["build on a class"] = b"\x80\x04cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb."
    files["array without state"] = pickle.dumps({"y": 1}, 4)[:-2] + b"X\x01\x00\x00\x00xcnumpy\nndarray\n)\x81su."
    files["dtype of a list"] = b"\x80\x04cnumpy\ndtype\n](\x8c\x02f4e\x85R."
    return files


@pytest.mark.parametrize("name", attacks(Path("mark")))
def test_nothing_of_a_strangers_file_runs(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    file = tmp_path / "evil.pkl"
    for content in (attacks(mark)[name], plain_pickle.seal(attacks(mark)[name])):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"evil\.pkl: "):
            plain_pickle.read(file)
    assert not mark.exists()


BOMBS = {
    "nested references": b"\x80\x04]\x94(" + b"".join(b"]\x94(" + b"h%c" % i * 10 + b"e" for i in range(9)) + b"e.",
    "a memo index of 2^27": b"\x80\x04Nr\x00\x00\x00\x08.",
    "state for a function": b"\x80\x04\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93"
    b"N}\x8c\x07__doc__\x8c\x01Zs\x86b.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_that_would_grow_or_change_the_program(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(plain_pickle.seal(BOMBS[name]))
    with pytest.raises(CheckpointError, match=r"refused|broken"):
        plain_pickle.read(tmp_path / "x.pkl")


def test_one_array_many_times_is_refused(tmp_path: Path) -> None:
    array = np.zeros(100_000, np.float32)
    (tmp_path / "x.pkl").write_bytes(plain_pickle.seal(pickle.dumps({"x": [array] * 300}, 4)))
    with pytest.raises(CheckpointError, match="contains the same _Unfilled in two places"):
        plain_pickle.read(tmp_path / "x.pkl")


def one_content_for_many_arrays(size: int, count: int) -> bytes:
    """A pickle that recalls the bytes of its first array for each of the others."""
    first = (
        b"\x80\x04}\x8c\x01x](\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93\x94"
        b"\x8c\x05numpy\x8c\x07ndarray\x93\x94K\x00\x85\x94C\x01b\x94\x87R(K\x01M"
        + struct.pack("<H", size)
        + b"\x85\x94"
        b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02u1\x89\x88\x87R(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x94"
        b"\x89B" + struct.pack("<I", size) + bytes(size) + b"\x94tb"
    )
    return first + b"h\x00h\x01h\x02h\x03\x87R(K\x01h\x04h\x05\x89h\x06tb" * count + b"es."


def test_the_content_of_an_array_is_not_copied_into_others() -> None:
    """A small file would fill the memory; single bytes, of which Python has one object each, may be recalled."""
    with pytest.raises(CheckpointError, match="contains the same bytes in two places"):
        safe_unpickler.decode(one_content_for_many_arrays(60_000, 3))
    assert [list(array) for array in safe_unpickler.decode(one_content_for_many_arrays(1, 2))["x"]] == [[0], [0], [0]]
    pair = [np.array([7], np.uint8), np.array([7], np.uint8)]
    assert safe_unpickler.decode(pickle.dumps(pair, 4)) == pair


def test_texts_are_short_and_not_repeated_without_end() -> None:
    with pytest.raises(CheckpointError, match="a string of more than 65,536 bytes"):
        safe_unpickler.decode(pickle.dumps({"x": "a" * 65_537}, 4))
    with pytest.raises(CheckpointError, match="its repeated strings exceed 67,108,864 characters"):
        safe_unpickler.decode(pickle.dumps({"x": ["a" * 65_536] * 2000}, 4))


def test_a_checksum_is_compared_before_a_file_goes_into_memory(tmp_path: Path) -> None:
    """Of a file that takes no place on the disk, and much in memory."""
    size = 1 << 28
    with (tmp_path / "x.pkl").open("wb") as stream:
        stream.seek(size)
        stream.write(plain_pickle.TRAILER.pack(plain_pickle.MAGIC, plain_pickle.VERSION, size, bytes(32)))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="its content has changed since it was written"):
            plain_pickle.read(tmp_path / "x.pkl")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_what_does_not_fit_into_memory_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(data: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(plain_pickle, "decode", full)
    with pytest.raises(CheckpointError, match=r"last\.pkl: needs more memory than is available"):
        plain_pickle.read(file)


def test_a_run_of_any_length_can_be_saved(tmp_path: Path) -> None:
    row = dict.fromkeys([*COLUMNS, "step_seconds"], 0.5)
    rows = [{**row, "epoch": float(number)} for number in range(30_000)]
    plain_pickle.write(tmp_path / "x.pkl", {"rows": rows})
    assert plain_pickle.read(tmp_path / "x.pkl")["rows"][-1] == rows[-1]


def usable() -> dict[str, Any]:
    """The content of a checkpoint of a small network."""
    network = build_model({"layers": ["flatten", {"linear": {"out_features": 2}}]}, (1, 2, 2))
    model = {"layers": ["flatten", {"linear": {"out_features": 2}}]}
    return {
        "version": 2,
        "task": {"name": "classification"},
        "task_state": {},
        "networks": {
            "model": {
                "model": model,
                "input_shape": [1, 2, 2],
                "weights": checkpoint.arrays(network.state()),
                "optimizer": {},
                "schedule": {},
            }
        },
        "loss": {"name": "cross_entropy"},
        "dtype": "float32",
        "data": {
            "input_shape": [1, 2, 2],
            "preparation": "plain",
            "mean": 0.1,
            "std": 0.3,
            "class_names": ["a", "b"],
            "fingerprint": "",
        },
        "config": {"epochs": 1, "model": model},
        "epoch": 0,
        "step": 0,
        "progress": {"rows": [], "steps": 0, "examples": 0, "sums": {}, "seconds": 0.0},
    }


PLACES = {
    **dict.fromkeys(("model", "weights", "optimizer", "schedule"), ("networks", "model")),
    **dict.fromkeys(("preparation", "mean", "std", "class_names", "fingerprint"), ("data",)),
}
"""Where in a checkpoint a key is, if not at the top; `input_shape` is in both."""


def usable_but(**changes: Any) -> dict[str, Any]:
    """The content of a usable checkpoint with other values, wherever their keys are."""
    content = usable()
    for key, value in changes.items():
        places = [("data",), ("networks", "model")] if key == "input_shape" else [PLACES.get(key, ())]
        for place in places:
            inner = content
            for name in place:
                inner = inner[name]
            inner[key] = value
    return content


def test_a_usable_checkpoint_is_rebuilt(tmp_path: Path) -> None:
    plain_pickle.write(tmp_path / "x.pkl", usable())
    network = checkpoint.rebuild(checkpoint.load(tmp_path / "x.pkl"))["model"]
    weights = usable()["networks"]["model"]["weights"]
    assert torch.equal(network.state()["linear_1.weight"], torch.from_numpy(weights["linear_1.weight"]))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": []},
        {"weights": {"linear_1.weight": 3}},
        {"weights": {}},
        {"weights": {"linear_1.weight": np.zeros((2, 5), np.float32)}},
        {"model": []},
        {"model": {}},
        {"model": {"layers": [{"linear": {"out_features": 10**12}}]}},
        {"model": {"layers": ["flatten", {"linear": {"out_features": 10**12}}]}},
        {"model": {"layers": ["eval"]}},
        {"input_shape": [1, 2]},
        {"input_shape": [10**9, 10**9, 10**9]},
        {"input_shape": ["a"]},
        {"dtype": "float16"},
        {"loss": {"name": "l7"}},
        {"loss": "cross_entropy"},
        {"loss": {"name": "cross_entropy", "weight": [1]}},
        {"task": {"name": "classify"}},
        {"task": {"name": "classification", "more": 1}},
        {"networks": {}},
        {"networks": {"critic": usable()["networks"]["model"]}},
        {"version": 3},
        {"version": np.zeros(0)},
        {"version": True},
        {"preparation": "none"},
        {"mean": "0.1"},
        {"mean": float("nan")},
        {"std": 0.0},
        {"class_names": []},
        {"class_names": ["a"]},
        {"class_names": ["a", "a"]},
        {"mean": 1e39},
        {"std": 1e-39},
        {"fingerprint": "\nerror: "},
        {"optimizer": {"steps": -5}},
        {"optimizer": {"steps": "a"}},
        {"config": {"model": {}}},
        {"config": {"model": {}, "epochs": "a"}},
        {"config": {"model": {}, "epochs": 1, "data": "x"}},
        {"config": {"model": {}, "epochs": 1, "more": [{"x": np.zeros(2)}]}},
        {"config": {"model": {}, "epochs": 1, "loss": "mse"}},
        {"config": {"model": {}, "epochs": 1, "loss": {"name": "l2"}}},
        {"config": {"model": {}, "epochs": 1, "task": {"name": "regression"}}},
        {"epoch": -1},
        {"epoch": 1},
        {"step": 10},
        {"more": 1},
        *({key: None} for key in ("weights", "model", "input_shape", "mean", "class_names", "config", "optimizer")),
    ],
    ids=str,
)
def test_content_that_cannot_be_used_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    plain_pickle.write(tmp_path / "x.pkl", usable_but(**change))
    with pytest.raises(CheckpointError):
        saved_task(checkpoint.load(tmp_path / "x.pkl"))


@pytest.mark.parametrize(
    "change",
    [
        *({"step": 1e300}, {"step": 0.5}, {"step": 0.0}, {"seconds": 1e308}, {"step_seconds": -1.0}),
        *({"val/accuracy": 1e9}, {"val/accuracy": None}, {"lr": None}, {"val/dice": 0.5}),
    ],
    ids=str,
)
def test_rows_that_no_epoch_ends_with_are_refused(change: dict[str, float], tmp_path: Path) -> None:
    row = dict.fromkeys([*COLUMNS, "step_seconds"], 1.0)
    for changed in ({}, change):
        rows = {"rows": [{name: value for name, value in (row | changed).items() if value is not None}]}
        content = usable_but(epoch=1, step=1, progress=usable()["progress"] | rows)
        plain_pickle.write(tmp_path / "x.pkl", content)
        if changed:
            with pytest.raises(CheckpointError, match="row 1 "):
                _restored(checkpoint.load(tmp_path / "x.pkl"))
        else:
            assert _restored(checkpoint.load(tmp_path / "x.pkl")).rows == [row]


def _restored(content: Checkpoint) -> Progress:
    """What a resume makes of a checkpoint."""
    network = build_model(content.networks["model"].model, (1, 2, 2))
    config = schema.parse(yaml.safe_load(CONFIG))
    return snapshot.restore(content, config, classifier(network, CrossEntropy(), SGD()))


CONFIG = """
{epochs: 1, batch_size: 4, seed: 0, dtype: float32, device: cpu, kernels: compiled, augment: {},
 model: {layers: [flatten, {linear: {out_features: 10}}]}, data: {name: mnist}, task: {name: classification},
 optimizer: {name: sgd}, loss: {name: cross_entropy}, schedule: {name: constant}}
"""


def test_texts_of_a_stranger_stay_on_one_short_line_that_names_the_file(tmp_path: Path) -> None:
    stranger = "\x1b[31mred\nerror: fake" + "a" * 60_000
    for change in (
        {stranger: 1},
        {"weights": {stranger: np.zeros(1, np.float32)}},
        {"model": {"layers": [stranger]}},
        {"model": {"layers": [{"relu": {stranger: 1}}]}},
        {"optimizer": {stranger: "x"}},
        {"loss": {"name": stranger}},
        {"task": {"name": "classification", stranger: 1}},
    ):
        plain_pickle.write(tmp_path / "x.pkl", usable_but(**change) if stranger not in change else usable() | change)
        with pytest.raises(CheckpointError, match=r"^[^\n]*x\.pkl: [^\n]*$") as caught:
            saved_task(checkpoint.load(tmp_path / "x.pkl"))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("depth", [12, 20])
def test_models_as_deep_as_they_are_allowed_are_saved_and_read(depth: int, tmp_path: Path) -> None:
    layers: list[Any] = ["relu"]
    for _ in range(depth):
        layers = [{"concat": {"branches": [layers]}}]
    model = {"layers": [*layers, "flatten", {"linear": {"out_features": 2}}]}
    content = usable_but(model=model, config={"epochs": 1, "model": model})
    checkpoint.save(tmp_path / "x.pkl", Checkpoint(**content))
    checkpoint.rebuild(checkpoint.load(tmp_path / "x.pkl"))


@pytest.mark.parametrize("key", [key for key in usable() if key != "version"])
def test_a_missing_part_is_named(key: str, tmp_path: Path) -> None:
    plain_pickle.write(tmp_path / "x.pkl", {name: value for name, value in usable().items() if name != key})
    with pytest.raises(CheckpointError, match=f"{key}: missing"):
        checkpoint.load(tmp_path / "x.pkl")


def test_arrays_are_checked_before_they_are_made(file: Path) -> None:
    """A shape that asks for more bytes than the file holds is refused."""
    lied = pickled(file).replace(b"K\x02K\x03\x86", b"K\xffK\xff\x86")
    assert lied != pickled(file)
    file.write_bytes(plain_pickle.seal(lied))
    with pytest.raises(CheckpointError, match="bytes don't match its shape"):
        plain_pickle.read(file)


def test_every_truncation_is_refused(file: Path) -> None:
    """Of the file, and of the pickle under a trailer that fits."""
    content = file.read_bytes()
    for end in range(len(content)):
        file.write_bytes(content[:end])
        with pytest.raises(CheckpointError, match="a truncated one"):
            plain_pickle.read(file)
    for end in range(len(content) - plain_pickle.TRAILER.size):
        file.write_bytes(plain_pickle.seal(content[:end]))
        with pytest.raises(CheckpointError):
            plain_pickle.read(file)


def test_other_files_and_versions_are_named(file: Path) -> None:
    good = file.read_bytes()
    magic, _, length, digest = plain_pickle.TRAILER.unpack(good[-plain_pickle.TRAILER.size :])
    newer = plain_pickle.TRAILER.pack(magic, 99, length, digest)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for content, message in {
        pickle.dumps({"theirs": 1}, 4): "not a checkpoint of this project, or a truncated one",
        b"not a pickle": "not a checkpoint of this project, or a truncated one",
        good[: -plain_pickle.TRAILER.size] + newer: "has format version 99, this program reads 2",
        b"more" + good: f"broken: it has {length + 4} bytes, but its trailer says {length}",
        bytes(flipped): r"broken: its content has changed since it was written \(SHA-256 mismatch\)",
    }.items():
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            plain_pickle.read(file)
    with pytest.raises(CheckpointError, match="there is no such file"):
        plain_pickle.read(file.parent / "missing.pkl")
    os.mkfifo(file.parent / "pipe.pkl")
    with pytest.raises(CheckpointError, match="there is no such file"):
        plain_pickle.read(file.parent / "pipe.pkl")


@pytest.mark.parametrize("content", [{"x": lambda: None}, {"x": {1, 2}}, {"x": 1j}, {1: 2}, {"x": np.float64(1)}])
def test_what_could_not_be_read_is_not_written(content: dict[Any, Any], file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises((CheckpointError, pickle.PicklingError, AttributeError, TypeError)):
        plain_pickle.write(file, content)
    assert file.read_bytes() == before
    assert [child.name for child in file.parent.iterdir()] == [file.name]


def test_a_disk_that_lies_is_found_out(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is read again before it takes the place of what was there."""
    before = file.read_bytes()
    monkeypatch.setattr(plain_pickle, "seal", lambda pickled: plain_pickle_seal(pickled)[:-1])
    with pytest.raises(CheckpointError, match="a truncated one"):
        plain_pickle.write(file, GOOD)
    assert file.read_bytes() == before
    assert [child.name for child in file.parent.iterdir()] == [file.name]


plain_pickle_seal = plain_pickle.seal


def after(step: int) -> dict[str, Any]:
    """The content of a usable checkpoint that was saved after this step of the first epoch."""
    return usable_but(step=step, progress=usable()["progress"] | {"steps": step, "examples": step})


def test_a_broken_last_gives_way_to_previous(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in (1, 2, 3):
        checkpoint.save(folder / "last.pkl", Checkpoint(**after(step)))
    assert sorted(file.name for file in folder.iterdir()) == ["last.pkl", "previous.pkl"]
    assert checkpoint.load_run(tmp_path, "last").step == 3
    assert caplog.messages == []
    for broken in (lambda file: file.write_bytes(b"torn"), Path.unlink):
        broken(folder / "last.pkl")
        caplog.clear()
        assert checkpoint.load_run(tmp_path, "last").step == 2
        (message,) = caplog.messages
        assert "previous.pkl, of step 2, instead" in message
    (folder / "previous.pkl").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="no checkpoints/last"):
        checkpoint.load_run(tmp_path, "last")
    with pytest.raises(CheckpointError, match="no checkpoints/best"):
        checkpoint.load_run(tmp_path)


def test_locate(tmp_path: Path, file: Path) -> None:
    assert checkpoint.locate(file) == file
    with pytest.raises(CheckpointError, match=r"aaa\.\.\.aaa.*: can't be read: File name too long"):
        checkpoint.locate("a" * 5000)
    with pytest.raises(CheckpointError, match="the run's name is empty"):
        checkpoint.locate("")
    with pytest.raises(
        CheckpointError, match=r"not a run directory with a checkpoint: it has no checkpoints/best\.pkl"
    ):
        checkpoint.locate(tmp_path)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_network_that_gives_no_numbers_names_nothing(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {"linear_1.weight": np.full((2, 4), 3e38, np.float32), "linear_1.bias": np.zeros(2, np.float32)}
    plain_pickle.write(tmp_path / "x.pkl", usable_but(weights=weights, mean=-3e38))
    Image.new("L", (4, 4), 200).save(tmp_path / "a.png")
    assert predict.main([str(tmp_path / "x.pkl"), str(tmp_path / "a.png"), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("x.pkl: its network's output is infinite or NaN\n")


def test_an_evaluation_without_numbers_is_refused(
    striped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {"layers": ["flatten", {"linear": {"out_features": 3}}]}
    weights = {"linear_1.weight": np.full((3, 100), 3e38, np.float32), "linear_1.bias": np.zeros(3, np.float32)}
    changed = {"model": model, "weights": weights, "mean": -3e38, "input_shape": [1, 10, 10]}
    plain_pickle.write(tmp_path / "x.pkl", usable_but(**changed, class_names=["0", "1", "2"]))
    assert evaluate.main([str(tmp_path / "x.pkl"), "data=idx", f"data.path={striped}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "x.pkl: its network's output isn't finite, its loss is" in err


def test_a_prediction_beyond_the_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_pickle.write(tmp_path / "x.pkl", usable())
    content = checkpoint.load(tmp_path / "x.pkl")
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        message = r"x\.pkl: its network needs more memory than is available"
        with pytest.raises(CheckpointError, match=message), checkpoint.enough_memory(content):
            raise error
    with pytest.raises(RuntimeError, match="another"), checkpoint.enough_memory(content):
        raise RuntimeError("another")

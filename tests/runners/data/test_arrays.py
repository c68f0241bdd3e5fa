"""Arrays in NumPy's files: classes or values of any shape as targets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from runners.cli import evaluate
from runners.data.batches import Batches
from runners.data.sources.arrays import Arrays
from runners.data.sources.idx import Idx
from tests.runners.config.own_files import forget
from tests.runners.conftest import Array, Run
from tests.runners.data.small_data import write_arrays
from tools.small_runs import stripes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "arrays")


def test_classes_are_as_in_other_files(folder: Path, striped: Path) -> None:
    ours, expected = Arrays(str(folder), val_examples=30).load(), Idx(str(striped), val_examples=30).load()
    assert ours.fingerprint == expected.fingerprint
    assert ours.as_text() == expected.as_text()
    assert ours.class_names == ["0", "1", "2"]
    assert ours.description == expected.description
    assert torch.equal(ours.val.images, expected.val.images)
    tested = Arrays(str(folder), num_examples=7, val_examples=60, val_split="test", split_seed=3).load()
    assert (len(tested.train), len(tested.val), tested.validated_on_test) == (7, 60, True)


@pytest.mark.parametrize("dtype", ["int8", "uint8", ">i2", "<u4", "int64", "uint64"])
def test_integers_are_classes(dtype: str, tmp_path: Path) -> None:
    train, _ = Arrays(str(write_arrays(tmp_path, lambda images, classes: classes.astype(dtype)))).read()
    assert train.targets.dtype == torch.int64
    assert train.targets.tolist() == stripes(150, (10, 10), 1)[1].tolist()


@pytest.mark.parametrize("dtype", ["float16", "<f4", ">f4", "float64"])
@pytest.mark.parametrize(
    ("shape", "told"), [((), "are numbers"), ((2,), "have the shape [2]"), ((1, 10, 10), "have the shape [1, 10, 10]")]
)
def test_floats_are_values(dtype: str, shape: tuple[int, ...], told: str, tmp_path: Path) -> None:
    def values(images: Array, classes: Array) -> Array:
        return np.random.default_rng(0).normal(size=(len(classes), *shape)).astype(dtype)

    dataset = Arrays(str(write_arrays(tmp_path, values)), val_examples=30).load()
    assert dataset.train.targets.dtype == torch.float32
    assert dataset.train.targets.shape == (120, *shape)
    assert dataset.class_names == []
    assert (dataset.description.classes, dataset.description.target_shape) == (None, shape)
    expected = "data: 120 training, 30 validation and 60 test examples, whose targets "
    assert dataset.as_text() == expected + told
    test = values(*stripes(60, (10, 10), 2)).astype(np.float32)
    assert np.array_equal(dataset.test.targets.numpy(), test)
    batches = Batches(dataset.test, 25, mean=0, std=1, dtype=torch.float64, device=torch.device("cpu"))
    drawn = list(batches.in_order())
    assert drawn[2].targets.shape == (*shape, 10)
    assert all(batch.targets.is_contiguous() for batch in drawn)
    assert np.array_equal(np.concatenate([batch.targets.numpy() for batch in drawn], -1), np.moveaxis(test, 0, -1))


@pytest.mark.parametrize(
    ("shape", "expected"), [((9, 8), (1, 9, 8)), ((3, 9, 8), (3, 9, 8)), ((2, 4, 9, 8), (2, 4, 9, 8))]
)
def test_images_of_every_shape(shape: tuple[int, ...], expected: tuple[int, ...], folder: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (150, *shape), np.uint8)
    np.save(folder / "train_images.npy", values)
    np.save(folder / "test_images.npy", np.asfortranarray(values[:60]))
    train, test = Arrays(str(folder)).read()
    assert train.images.shape[1:] == test.images.shape[1:] == expected
    assert np.array_equal(train.images.numpy().ravel(), values.ravel())
    assert torch.equal(test.images, train.images[:60])
    assert test.images.is_contiguous()


def test_split_and_fingerprint_depend_on_targets(tmp_path: Path) -> None:
    first = Arrays(str(write_arrays(tmp_path, lambda images, classes: classes / 2)), val_examples=30).load()
    other = Arrays(str(write_arrays(tmp_path, lambda images, classes: classes / 4)), val_examples=30).load()
    assert torch.equal(first.val.targets, 2 * other.val.targets)
    assert first.fingerprint != other.fingerprint


def test_a_run_on_classes(run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data=arrays", f"data.path={folder}", "data.val_examples=30", "run_dir=a") == 0
    capsys.readouterr()
    assert evaluate.main(["a"]) == 0
    assert "arrays: 60 test examples" in capsys.readouterr().out
    write_arrays(tmp_path / "values", lambda images, classes: classes / 2)
    assert evaluate.main(["a", f"data.path={tmp_path / 'values'}"]) == 2
    assert capsys.readouterr().err == "error: the data's targets are values, but the network knows classes\n"


def test_classification_needs_classes(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_arrays(tmp_path / "values", lambda images, classes: classes / 2)
    for mode in ([], ["debug=gradcheck"], ["debug=summary"]):
        assert run("data=arrays", f"data.path={folder}", "data.val_examples=30", *mode) == 2
        told = "error: task.name: classification needs classes, but the data's targets are values: choose a task for "
        assert capsys.readouterr().err.startswith(told)
    assert [path.name for path in Path().iterdir()] == ["values"]


VALUES = """
from runners.tasks.task import EVALUATION, Task


class Values(Task):
    kind = "values"

    def train_step(self, batches, step, sums):
        trained = self.trained["model"]
        trained.graph.flat.grad.zero_()
        for batch in batches:
            y, cache = trained.graph.forward(batch.x, step.mode)
            value, loss_cache = self.loss.forward(y, batch.targets)
            trained.graph.backward(self.loss.backward(loss_cache), cache, need_dx=False)
            sums.add("loss", value * len(batch), len(batch))
        trained.update(step, sums.total("loss"))

    def evaluate(self, batch, sums):
        y = self.predict(batch.x)
        sums.add("loss", self.loss.forward(y, batch.targets)[0] * len(batch), len(batch))
        return y

    def predict(self, x):
        return self.graphs["model"].forward(x, EVALUATION)[0]
"""


@pytest.fixture
def forgotten() -> Iterator[None]:
    """The task that a test has registered isn't there in the next one."""
    yield
    forget()


@pytest.mark.usefixtures("forgotten")
def test_a_run_on_values(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task of one's own learns the mean and the spread of the pixels."""
    folder = write_arrays(
        tmp_path / "values", lambda images, classes: np.stack([images.mean((1, 2)), images.std((1, 2))], 1)
    )
    Path("values.py").write_text(VALUES)
    layers = "model.layers=[flatten,{linear:{out_features:2}}]"
    typed = ["extensions=[values.py]", "task.name=values", "loss=l2", layers, "optimizer=sgd", "optimizer.lr=0.001"]
    assert run("data=arrays", f"data.path={folder}", "data.val_examples=30", *typed, "run_dir=a") == 0
    assert (
        "120 training, 30 validation and 60 test examples, whose targets have the shape [2]" in capsys.readouterr().out
    )
    assert evaluate.main(["a", "extensions=[values.py]"]) == 0
    assert "arrays: 60 test examples, loss" in capsys.readouterr().out

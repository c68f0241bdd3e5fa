"""Datasets and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from runners.data.batches import Batches
from runners.data.dataset import Dataset
from runners.data.sources.idx import Idx, Mnist
from tools.small_runs import write_idx


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return Mnist(num_examples=20000, val_examples=5000).load()


def make(dataset: Dataset, size: int, dtype: torch.dtype = torch.float32) -> Batches:
    return Batches(dataset.train, size, mean=dataset.mean, std=dataset.std, dtype=dtype, device=torch.device("cpu"))


def test_mnist(mnist: Dataset) -> None:
    assert (len(mnist.train), len(mnist.val), len(mnist.test)) == (20000, 5000, 10000)
    assert mnist.input_shape == (1, 28, 28)
    assert mnist.class_names == [str(number) for number in range(10)]
    assert mnist.mean == pytest.approx(mnist.train.images.double().mean().item() / 255)
    assert mnist.std == pytest.approx(mnist.train.images.double().std(correction=0).item() / 255)
    assert mnist.test.targets[:5].tolist() == [7, 2, 1, 0, 4]


def test_training_and_validation_examples_are_apart_and_fixed(striped: Path) -> None:
    first = Idx(str(striped), val_examples=30).load()
    again = Idx(str(striped), val_examples=30, num_examples=50).load()
    other = Idx(str(striped), val_examples=30, split_seed=1).load()
    rows = {tuple(image.flatten().tolist()) for image in first.train.images}
    assert len(rows) == len(first.train) == 120
    assert not rows & {tuple(image.flatten().tolist()) for image in first.val.images}
    assert torch.equal(first.val.images, again.val.images)
    assert torch.equal(first.train.images[:50], again.train.images)
    assert not torch.equal(first.val.images, other.val.images)
    assert first.fingerprint == again.fingerprint == other.fingerprint


def test_validation_on_the_test_file(striped: Path) -> None:
    dataset = Idx(str(striped), val_examples=60, val_split="test").load()
    assert len(dataset.train) == 150
    assert sorted(dataset.val.targets.tolist()) == sorted(dataset.test.targets.tolist())


def test_fingerprint_depends_on_every_byte(striped: Path, tmp_path: Path) -> None:
    for file in striped.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    same = Idx(str(tmp_path), val_examples=30).load().fingerprint
    assert same == Idx(str(striped), val_examples=30).load().fingerprint
    images = tmp_path / "t10k-images-idx3-ubyte"
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    assert Idx(str(tmp_path), val_examples=30).load().fingerprint != same


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_hold_every_example_once_in_our_layout(mnist: Dataset, dtype: torch.dtype) -> None:
    batches = make(mnist, 3000, dtype)
    drawn = list(batches.in_order())
    assert [len(batch) for batch in drawn] == [3000] * 6 + [2000]
    assert len(batches) == 7
    assert drawn[0].x.shape == (1, 28, 28, 3000)
    assert drawn[0].x.is_contiguous()
    assert drawn[0].x.dtype == dtype
    expected = (mnist.train.images[3000].double() / 255 - mnist.mean) / mnist.std
    assert torch.allclose(drawn[1].x[..., 0].double(), expected, atol=1e-6)
    assert torch.equal(torch.cat([batch.targets for batch in drawn]), mnist.train.targets)


def test_shuffles_are_permutations_that_seed_and_epoch_decide(mnist: Dataset) -> None:
    batches = make(mnist, 4096)

    def order(seed: int, epoch: int) -> list[int]:
        drawn = list(batches.shuffled(seed, epoch))
        assert sorted(torch.cat([batch.targets for batch in drawn]).tolist()) == sorted(mnist.train.targets.tolist())
        return torch.cat([batch.x[0, 14, 14] for batch in drawn]).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_moments_of_a_constant_image_do_not_divide_by_zero(tmp_path: Path) -> None:
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", np.full((20, 4, 4), 7))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(20) % 2)
    dataset = Idx(str(tmp_path), val_examples=5).load()
    assert dataset.std == 1 / 255

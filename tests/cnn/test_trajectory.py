"""Training steps follow torch's losses from the same weights."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from benchmarks.peers import PEERS
from cnn import Sequential, build_model
from cnn.losses import CrossEntropy
from cnn.optimizers import OPTIMIZERS
from runners.config import composition
from runners.data import Examples
from runners.data.batches import Batch, Batches
from runners.data.sources.idx import read_idx
from tests.classifier import classifier, train_step
from tests.cnn.oracle import copy_state, sequence, theirs

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).parents[2]


def shipped(name: str) -> dict[str, object]:
    """A model of configs/, for the caller to change as it likes."""
    return deepcopy(_resolved(name))


@functools.cache
def _resolved(name: str) -> dict[str, object]:
    composition.register_resolvers()
    composed = OmegaConf.create({"model": OmegaConf.load(ROOT / "configs" / "model" / f"{name}.yaml")})
    model: dict[str, object] = OmegaConf.to_container(composed, resolve=True)["model"]  # type: ignore[assignment, call-overload, index]
    return model


@pytest.fixture(scope="module")
def digits() -> Examples:
    folder = ROOT / "runners" / "data" / "mnist"
    images = torch.from_numpy(read_idx(folder / "t10k-images-idx3-ubyte.gz")[:640, None])
    return Examples(images, torch.from_numpy(read_idx(folder / "t10k-labels-idx1-ubyte.gz")[:640]).long())


def follow(network: Sequential, peer: nn.Module, optimizer: str, lr: float, digits: Examples) -> Iterator[float]:
    """The relative difference of the two losses, step after step."""
    for found, expected in losses(network, peer, optimizer, lr, digits):
        yield abs(found - expected) / abs(expected)


def losses(
    network: Sequential, peer: nn.Module, optimizer: str, lr: float, digits: Examples
) -> Iterator[tuple[float, float]]:
    """Both losses, step after step, from the network's weights."""
    copy_state(network, peer)
    task = classifier(network, CrossEntropy(), OPTIMIZERS[optimizer](lr=lr))  # type: ignore[call-arg]
    dtype = network.flat.data.dtype
    expected = peer_losses(peer, optimizer, lr, digits)
    for batch, loss in zip(batches(digits, dtype), expected, strict=True):
        yield train_step(task, [batch])["train/loss"], loss


def peer_losses(peer: nn.Module, optimizer: str, lr: float, digits: Examples) -> Iterator[float]:
    peer.train()
    rule = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer](peer.parameters(), lr)
    for batch in batches(digits, next(peer.parameters()).dtype):
        rule.zero_grad()
        loss = nn.functional.cross_entropy(peer(theirs(batch.x)), batch.targets)
        loss.backward()
        rule.step()
        yield loss.item()


def batches(digits: Examples, dtype: torch.dtype) -> Iterator[Batch]:
    return Batches(digits, 32, mean=0.13, std=0.31, dtype=dtype, device=torch.device("cpu")).in_order()


@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 0.001), ("sgd", 0.01)])
@pytest.mark.parametrize("model", PEERS)
def test_ten_steps(model: str, optimizer: str, lr: float, digits: Examples, kernel_set: str) -> None:
    """Larger steps of Adam differ more: where a gradient is nothing but rounding, its sign decides the step."""
    network = build_model(shipped(model), (1, 28, 28), seed=1)
    differences = follow(network, PEERS[model](), optimizer, lr, digits.select(np.arange(320)))
    assert max(differences) <= 1e-4


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("model", PEERS)
def test_ten_larger_steps_in_double_precision(model: str, optimizer: str, digits: Examples) -> None:
    network = build_model(shipped(model), (1, 28, 28), seed=1, dtype=torch.float64)
    assert max(follow(network, PEERS[model]().double(), optimizer, 0.01, digits.select(np.arange(320)))) <= 1e-9


def test_twenty_steps_of_resnet13(digits: Examples, kernel_set: str) -> None:
    assert max(follow(*resnet13(torch.float32), "sgd", 0.01, digits)) <= 1e-3


@pytest.fixture(scope="module")
def exact(digits: Examples) -> Array:
    """The losses of twenty steps of Adam, by torch in double precision, [20]."""
    network, peer = resnet13(torch.float32)
    copy_state(network, peer)
    return np.array(list(peer_losses(peer.double(), "adam", 0.0003, digits)))


@pytest.mark.xdist_group("exact")
def test_twenty_steps_of_resnet13_with_adam(exact: Array, digits: Examples, kernel_set: str) -> None:
    """Rounding decides the sign of some of Adam's steps: single precision drifts, ours not further than torch's."""
    found = np.array(list(losses(*resnet13(torch.float32), "adam", 0.0003, digits)))
    drift = abs(found / exact[:, None] - 1).max(0)
    assert drift[0] <= 2 * drift[1] <= 1e-2


@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 0.001), pytest.param("sgd", 0.1, marks=pytest.mark.long)])
def test_twenty_larger_steps_of_resnet13_in_double_precision(optimizer: str, lr: float, digits: Examples) -> None:
    assert max(follow(*resnet13(torch.float64), optimizer, lr, digits)) <= 1e-9


def resnet13(dtype: torch.dtype) -> tuple[Sequential, nn.Module]:
    model = shipped("resnet13")
    network = build_model(model, (1, 28, 28), seed=1, dtype=dtype)
    return network, sequence(model["layers"], (1, 28, 28)).to(dtype)  # type: ignore[arg-type]

"""Ten training steps follow torch's losses from the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from benchmarks.peers import PEERS
from cnn import Sequential, build_model
from cnn.losses import CrossEntropy
from cnn.optimizers import OPTIMIZERS
from runners.data import Examples
from runners.data.batches import Batches
from runners.data.idx import read_idx
from runners.tasks import Classification
from runners.tasks.classification import Totals
from tests.cnn.oracle import copy_state, theirs

ROOT = Path(__file__).parents[2]


def shipped(name: str) -> dict[str, object]:
    composed = OmegaConf.create({"model": OmegaConf.load(ROOT / "configs" / "model" / f"{name}.yaml")})
    model: dict[str, object] = OmegaConf.to_container(composed, resolve=True)["model"]  # type: ignore[assignment, call-overload, index]
    return model


@pytest.fixture(scope="module")
def digits() -> Examples:
    folder = ROOT / "runners" / "data" / "mnist"
    images = torch.from_numpy(read_idx(folder / "t10k-images-idx3-ubyte.gz")[:320, None])
    return Examples(images, torch.from_numpy(read_idx(folder / "t10k-labels-idx1-ubyte.gz")[:320]).long())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("model", PEERS)
def test_ten_steps(model: str, optimizer: str, digits: Examples, kernel_set: str) -> None:
    torch.manual_seed(0)
    network: Sequential = build_model(shipped(model), (1, 28, 28), seed=1)
    peer = PEERS[model]()
    copy_state(network, peer)
    lr = 0.01
    peer_step = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer](peer.parameters(), lr)
    ours = OPTIMIZERS[optimizer](lr=lr)  # type: ignore[call-arg]
    task = Classification(network, CrossEntropy())
    device = torch.device("cpu")
    for batch in Batches(digits, 32, mean=0.13, std=0.31, dtype=torch.float32, device=device).in_order():
        peer_step.zero_grad()
        expected = nn.functional.cross_entropy(peer(theirs(batch.x)), batch.labels)
        expected.backward()
        peer_step.step()
        totals = Totals()
        task.train_step([batch], ours, lr, totals)
        found = totals.means("train")["train/loss"]
        assert abs(found - expected.item()) <= 1e-4 * abs(expected.item())

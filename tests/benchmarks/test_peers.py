"""The torch.nn peers are our models: same parameters, same outputs and gradients from the same weights."""

from __future__ import annotations

import pytest
import torch

from benchmarks.peers import MODELS, PEERS
from benchmarks.sides import Case
from cnn import Mode, ops
from tests.cnn.oracle import compare, randomised

CASES = [
    *(Case(model, 4) for model in MODELS),
    *(Case(model, 2, width=3, size=31) for model in MODELS),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_peer_is_our_model(case: Case) -> None:
    network = randomised(case.network())
    assert network.flat.data.numel() == sum(parameter.numel() for parameter in case.peer().parameters())
    with ops.kernels("reference"):
        for mode in (Mode(train=True), Mode(train=False)):
            errors = compare(network, case.peer(), case.draw().x.double(), mode, as_one=True)
            assert max(errors.values()) <= 1e-9


def test_peers_without_arguments_are_the_shipped_models() -> None:
    for model in PEERS:
        count = sum(parameter.numel() for parameter in PEERS[model]().parameters())
        assert count == Case(model, 1).network().flat.data.numel()


def test_a_drawn_batch_is_always_the_same() -> None:
    first, second = (Case("seed8", 4).draw() for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.targets, second.targets)

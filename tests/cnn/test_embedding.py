"""Embeddings: numbers out of range, the vector of a padding, and examples for a check of gradients."""

from __future__ import annotations

import math

import pytest
import torch

from cnn import Mode, build_model
from cnn.faults import ConfigError
from cnn.layers.embedding import Embedding
from tests.cnn.oracle import compare, sequence


@pytest.mark.parametrize("wrong", [5.0, 4.6, -1.0, -0.6, math.nan, math.inf])
def test_an_embedding_names_a_number_out_of_range(wrong: float) -> None:
    network = build_model({"layers": [{"embedding": {"num_embeddings": 5, "embedding_dim": 2}}]}, (3,))
    x = torch.tensor([[0.0, 4.4], [1.0, -0.4], [2.0, 2.0]])
    assert network.forward(x, Mode(train=False))[0].shape == (2, 3, 2)
    x[1, 1] = wrong
    with pytest.raises(ValueError, match=f"embedding got {wrong:g}, but its vectors are numbered 0 to 4"):
        network.forward(x, Mode(train=False))
    with pytest.raises(ConfigError, match="padding_idx: 5 is not allowed, give -5 to 4, or null"):
        Embedding(5, 2, padding_idx=5)


def test_the_vector_of_a_padding_is_zero_and_gets_no_gradient() -> None:
    entry = {"embedding": {"num_embeddings": 3, "embedding_dim": 2, "padding_idx": -1}}
    network = build_model({"layers": [entry]}, (4,))
    x = torch.tensor([[0.0], [2], [2], [1]])
    y, cache = network.forward(x, Mode(train=True))
    assert y[:, 1:3].eq(0).all()
    assert y[:, 0].ne(0).all()
    network.backward(torch.ones_like(y), cache)
    assert network.flat.grad.tolist() == [1, 1, 1, 1, 0, 0]
    assert max(compare(network, sequence([entry], (4,)), x, Mode(train=True)).values()) <= 1e-6


@pytest.mark.parametrize("padding", [None, 0, 2, 4, -1])
def test_examples_of_an_embedding_are_all_of_its_numbers_but_the_padding(padding: int | None) -> None:
    layer = Embedding(5, 2, padding)
    found = layer.example(torch.linspace(-1.999, 1.999, 100)).unique().tolist()
    assert found == [number for number in range(5) if padding is None or number != padding % 5]
    assert Embedding(1, 2, 0).example(torch.tensor([-1.0, 1.0])).tolist() == [0, 0]

"""Every loss: float64 gradients against finite differences, float32 values and gradients against torch's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cnn.gradcheck import finite_differences, relative_error
from cnn.losses import LOSSES
from tests.cnn.oracle import ours, theirs

PEERS = {"cross_entropy": nn.CrossEntropyLoss(), "l2": nn.MSELoss(), "l1": nn.L1Loss()}


@st.composite
def pairs(draw: st.DrawFn, kind: str) -> tuple[Tensor, Tensor]:
    shape = (draw(st.integers(2, 6)), *draw(st.lists(st.integers(1, 3), max_size=2)), draw(st.integers(1, 5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    prediction = torch.randn(shape, generator=generator, dtype=torch.float64) * draw(st.sampled_from([0.1, 3.0]))
    if kind == "cross_entropy":
        return prediction, torch.randint(0, shape[0], shape[1:], generator=generator)
    difference = torch.randn(shape, generator=generator, dtype=torch.float64)
    return prediction, prediction + difference + 0.1 * difference.sign()


def test_every_loss_has_a_peer() -> None:
    assert set(PEERS) == set(LOSSES)


@pytest.mark.parametrize("kind", PEERS)
@given(data=st.data())
def test_gradients_against_finite_differences(kind: str, data: st.DataObject) -> None:
    prediction, target = data.draw(pairs(kind))
    loss = LOSSES[kind]()
    _, cache = loss.forward(prediction, target)
    found = loss.backward(cache)
    assert (
        relative_error(found, finite_differences(lambda: float(loss.forward(prediction, target)[0]), prediction))
        <= 1e-6
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("kind", PEERS)
@given(data=st.data())
def test_against_torch(kind: str, dtype: torch.dtype, tolerance: float, data: st.DataObject) -> None:
    prediction, target = data.draw(pairs(kind))
    prediction, target = prediction.to(dtype), target if kind == "cross_entropy" else target.to(dtype)
    kept = prediction.clone(), target.clone()
    loss = LOSSES[kind]()
    value, cache = loss.forward(prediction, target)
    gradient = loss.backward(cache)
    assert torch.equal(prediction, kept[0])
    assert torch.equal(target, kept[1])
    leaf = theirs(prediction).requires_grad_()
    expected = PEERS[kind](leaf, target.movedim(-1, 0))
    expected.backward()
    assert leaf.grad is not None
    assert relative_error(value, expected.detach()) <= tolerance
    assert relative_error(gradient, ours(leaf.grad)) <= tolerance


def test_cross_entropy_of_huge_logits_is_finite() -> None:
    loss = LOSSES["cross_entropy"]()
    value, cache = loss.forward(torch.tensor([[1e4], [-1e4], [0.0]]), torch.tensor([1]))
    assert value == 2e4
    assert loss.backward(cache).flatten().tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_other_shapes_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"the prediction is \[3, 2\], the target \[3, 1\]"):
        LOSSES[kind]().forward(torch.zeros(3, 2), torch.zeros(3, 1))


def test_a_loss_cache_is_consumed_once() -> None:
    loss = LOSSES["l2"]()
    _, cache = loss.forward(torch.ones(2), torch.zeros(2))
    loss.backward(cache)
    with pytest.raises(RuntimeError, match="consumed"):
        loss.backward(cache)

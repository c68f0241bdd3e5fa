"""Every loss: float64 gradients against finite differences, values and gradients against torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cnn.arguments import construct
from cnn.faults import ConfigError
from cnn.gradients.finite_differences import finite_differences, relative_error
from cnn.losses import LOSSES, Loss
from tests.cnn import ledger
from tests.cnn.oracle import ours, theirs

PEERS = {
    "cross_entropy": nn.CrossEntropyLoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
    "l2": nn.MSELoss,
    "l1": nn.L1Loss,
    "huber": nn.HuberLoss,
}
Case = tuple[Tensor, Tensor, dict[str, Any]]


@st.composite
def cases(draw: st.DrawFn, kind: str) -> Case:
    """A prediction, a target and arguments; no difference is at a kink of l1 or huber."""
    shape = (draw(st.integers(2, 6)), *draw(st.lists(st.integers(1, 3), max_size=2)), draw(st.integers(1, 5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    prediction = torch.randn(shape, generator=generator, dtype=torch.float64) * draw(st.sampled_from([0.1, 3.0]))
    per_class = st.none() | st.lists(st.floats(0.1, 5) | st.just(0.0), min_size=shape[0], max_size=shape[0])
    if kind == "cross_entropy":
        target = torch.randint(0, shape[0], shape[1:], generator=generator)
        weight = draw(per_class)
        if weight is not None:
            weight[int(target.flatten()[0])] = 1.5  # some target counts, or the mean is 0 / 0
        smoothing = draw(st.just(0.0) | st.floats(0, 1))
        return prediction, target, {"weight": weight, "label_smoothing": smoothing}
    if kind == "bce_with_logits":
        target = torch.rand(shape, generator=generator, dtype=torch.float64)
        target = target.round() if draw(st.booleans()) else target
        return prediction, target, {"pos_weight": draw(per_class)}
    difference = torch.randn(shape, generator=generator, dtype=torch.float64)
    difference += 0.1 * difference.sign()
    if kind == "huber":
        delta = draw(st.floats(0.1, 3))
        difference[(difference.abs() - delta).abs() < 1e-3] += 0.01
        return prediction, prediction - difference, {"delta": delta}
    return prediction, prediction - difference, {}


def peer_of(kind: str, arguments: dict[str, Any], prediction: Tensor) -> nn.Module:
    """Torch's loss; its pos_weight broadcasts against [N, K, *S]."""
    tensors = {
        name: torch.tensor(value, dtype=prediction.dtype) if isinstance(value, list) else value
        for name, value in arguments.items()
    }
    if tensors.get("pos_weight") is not None:
        tensors["pos_weight"] = tensors["pos_weight"].view(-1, *[1] * (prediction.ndim - 2))
    module: nn.Module = PEERS[kind](**tensors)
    return module


def make(kind: str, arguments: dict[str, Any]) -> Loss:
    loss: Loss = construct(LOSSES[kind], arguments)
    return loss


def test_every_loss_has_a_peer() -> None:
    assert set(PEERS) == {kind for kind, loss in LOSSES.items() if loss.targets != "real"}  # see test_adversarial.py


@pytest.mark.parametrize("kind", PEERS)
@given(data=st.data())
def test_gradients_against_finite_differences(kind: str, data: st.DataObject) -> None:
    prediction, target, arguments = data.draw(cases(kind))
    loss = make(kind, arguments)
    _, cache = loss.forward(prediction, target)
    found = loss.backward(cache)
    expected = finite_differences(lambda: float(loss.forward(prediction, target)[0]), prediction)
    ledger.check("loss", "finite differences", {kind: relative_error(found, expected, noise=1e-9)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", PEERS)
@settings(max_examples=50)
@given(data=st.data())
def test_against_torch(kind: str, dtype: torch.dtype, data: st.DataObject) -> None:
    prediction, target, arguments = data.draw(cases(kind))
    prediction, target = prediction.to(dtype), target if kind == "cross_entropy" else target.to(dtype)
    kept = prediction.clone(), target.clone()
    loss = make(kind, arguments)
    value, cache = loss.forward(prediction, target)
    gradient = loss.backward(cache)
    assert torch.equal(prediction, kept[0])
    assert torch.equal(target, kept[1])
    leaf = theirs(prediction).requires_grad_()
    expected = peer_of(kind, arguments, prediction)(leaf, target.movedim(-1, 0))
    expected.backward()
    assert leaf.grad is not None
    errors = {"value": relative_error(value, expected.detach())}
    # a class whose targets have no weight gets no gradient
    errors["gradient"] = relative_error(gradient, ours(leaf.grad), noise=1e-9)
    ledger.drawn["loss"] += 1
    ledger.check("loss", ledger.against_torch(dtype), errors)


def test_cross_entropy_of_huge_logits_is_finite() -> None:
    loss = LOSSES["cross_entropy"]()
    value, cache = loss.forward(torch.tensor([[1e4], [-1e4], [0.0]]), torch.tensor([1]))
    assert value == 2e4
    assert loss.backward(cache).flatten().tolist() == [1.0, -1.0, 0.0]


def test_bce_of_huge_logits_is_finite() -> None:
    loss = LOSSES["bce_with_logits"]()
    value, cache = loss.forward(torch.tensor([[1e4], [-1e4], [1e4]]), torch.tensor([[1.0], [1.0], [0.0]]))
    assert value == pytest.approx(2e4 / 3)
    assert loss.backward(cache).flatten().tolist() == pytest.approx([0.0, -1 / 3, 1 / 3])


@pytest.mark.parametrize("pos_weight", [None, [3.0]])
def test_bce_keeps_the_tails_of_both_targets(pos_weight: list[float] | None) -> None:
    """A loss of 1e-8 isn't rounded away next to the logit, in value and gradient, on either side."""
    loss = LOSSES["bce_with_logits"](**({"pos_weight": pos_weight} if pos_weight else {}))
    weight = pos_weight[0] if pos_weight else 1.0
    for z in [1.0, 5.0, 17.0, 18.0, 30.0, 80.0]:
        for target, factor, sign in ((0.0, 1.0, -1.0), (1.0, weight, 1.0)):
            value, cache = loss.forward(torch.tensor([[sign * z]]), torch.tensor([[target]]))
            gradient = loss.backward(cache)
            logit = torch.tensor(-z, dtype=torch.float64, requires_grad=True)
            expected = factor * nn.functional.softplus(logit, threshold=100)
            expected.backward()
            assert logit.grad is not None
            assert value.item() == pytest.approx(expected.item(), rel=1e-6)
            assert gradient.item() == pytest.approx(-sign * logit.grad.item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["l1", "l2", "huber", "bce_with_logits"])
def test_other_shapes_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"the prediction is \[3, 2\], the target \[3, 1\]"):
        LOSSES[kind]().forward(torch.zeros(3, 2), torch.zeros(3, 1))


@pytest.mark.parametrize(("kind", "argument"), [("cross_entropy", "weight"), ("bce_with_logits", "pos_weight")])
def test_another_number_of_classes_is_refused(kind: str, argument: str) -> None:
    loss = make(kind, {argument: [1.0, 2.0]})
    loss.check_classes(2)
    with pytest.raises(ConfigError, match=f"{argument}: 2 numbers for 3 classes, give 3, one per class"):
        loss.check_classes(3)
    LOSSES[kind]().check_classes(3)


@pytest.mark.parametrize(
    ("kind", "arguments", "place"),
    [
        ("cross_entropy", {"weight": [0, 0]}, "weight: every weight is 0"),
        ("cross_entropy", {"weight": []}, "weight"),
        ("cross_entropy", {"weight": [1, -1]}, "weight"),
        ("cross_entropy", {"label_smoothing": 1.1}, "label_smoothing"),
        ("bce_with_logits", {"pos_weight": 2.0}, "pos_weight"),
        ("huber", {"delta": 0}, "delta"),
    ],
)
def test_bad_arguments_are_named(kind: str, arguments: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        make(kind, arguments)


@pytest.mark.parametrize("kind", PEERS)
def test_a_loss_cache_is_consumed_once(kind: str) -> None:
    loss = LOSSES[kind]()
    target = torch.zeros(1, dtype=torch.int64) if loss.targets == "classes" else torch.zeros(2, 1)
    _, cache = loss.forward(torch.ones(2, 1), target)
    loss.backward(cache)
    with pytest.raises(RuntimeError, match="consumed"):
        loss.backward(cache)

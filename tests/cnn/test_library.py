"""Networks used by hand: inputs that don't fit, labels of any integer type, copies, pickles, no schedule."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnn import Mode, Sequential, build_model
from cnn.graphs.fusion import fuse
from cnn.losses import LOSSES, CrossEntropy
from cnn.optimizers import OPTIMIZERS
from cnn.schedules import SCHEDULES, Cosine, OneCycle, RunLength
from tests.cnn.case import normal

LAYERS: list[Any] = [
    {"conv2d": {"out_channels": 4, "kernel_size": 3}},
    *("batch_norm", "relu", {"max_pool2d": {"kernel_size": 2}}),
    {"residual": {"body": [{"conv2d": {"out_channels": 6, "kernel_size": 1, "bias": False}}, "layer_norm"]}},
    {"repeat": {"times": 2, "layers": ["flatten", {"linear": {"out_features": 3}}]}},
]


def network(dtype: torch.dtype = torch.float32) -> Sequential:
    return build_model({"layers": LAYERS}, (1, 10, 10), dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 10, 10), r"x is \[1, 10, 10\], but this network takes \[1, 10, 10, N\]: the N examples are last"),
        ((1, 11, 11, 2), r"x is \[1, 11, 11, 2\], but this network takes"),  # a pool would cut it to the same size
        ((4, 1, 10, 10), r"x is \[4, 1, 10, 10\], but this network takes"),
        ((3, 10, 10, 2), r"x is \[3, 10, 10, 2\], but this network takes"),
        ((), r"x is \[\], but this network takes"),
    ],
)
def test_inputs_of_another_shape_are_refused(shape: tuple[int, ...], message: str, kernel_set: str) -> None:
    for net in (network(), fuse(network())):
        with pytest.raises(ValueError, match=message):
            net.forward(torch.ones(shape), Mode(train=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.float16])
def test_inputs_of_another_dtype_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"the weights are torch.float32, x is {dtype}: use one dtype"):
        network().forward(torch.ones(1, 10, 10, 2, dtype=dtype), Mode(train=True))


def test_an_input_of_autograd_is_taken_as_its_values(kernel_set: str) -> None:
    x, leaf = normal((1, 10, 10, 4), 0).float(), normal((1, 10, 10, 4), 0).float().requires_grad_()
    results = []
    for given in (x, leaf):
        net = network()
        y, cache = net.forward(given, Mode(train=True))
        dx = net.backward(normal((3, 4), 1).float(), cache)
        assert dx is not None
        assert not any(tensor.requires_grad for tensor in (y, dx))
        results.append((y, dx, net.flat.grad))
    assert all(map(torch.equal, *results))
    assert leaf.grad is None


@pytest.mark.parametrize("kind", LOSSES)
def test_a_prediction_of_autograd_is_taken_as_its_values(kind: str, kernel_set: str) -> None:
    loss, prediction = LOSSES[kind](), normal((3, 4), 0).float()
    target = torch.tensor([0, 2, 1, 1]) if loss.targets == "classes" else (normal((3, 4), 1) > 0).float()
    value, cache = loss.forward(prediction.clone().requires_grad_(), target)
    gradient = loss.backward(cache)
    assert not any(tensor.requires_grad for tensor in (value, gradient))
    expected, cache = loss.forward(prediction, target)
    assert torch.equal(value, expected)
    assert torch.equal(gradient, loss.backward(cache))


INTEGERS = [torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0]])
def test_classes_of_any_integer_type(dtype: torch.dtype, weight: list[float] | None, kernel_set: str) -> None:
    logits, labels = normal((3, 5), 0), torch.tensor([0, 2, 1, 1, 0])
    leaf = logits.T.clone().requires_grad_()
    nn.CrossEntropyLoss(None if weight is None else torch.tensor(weight).double())(leaf, labels).backward()
    loss = CrossEntropy(weight)
    _, cache = loss.forward(logits, labels.to(dtype))
    assert leaf.grad is not None
    assert torch.allclose(loss.backward(cache), leaf.grad.T, rtol=1e-12)
    assert loss.share(labels.to(dtype)) == loss.share(labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_classes_that_are_no_integers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"the targets are {dtype}, but classes are integers"):
        CrossEntropy().forward(torch.zeros(3, 2), torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize("label", [-1, 3, 255])
@pytest.mark.parametrize("count", [5, 10_000])  # small and large batches are computed in different ways
def test_classes_that_there_are_not_are_counted(label: int, count: int, kernel_set: str) -> None:
    labels = torch.zeros(count, dtype=torch.int64)
    labels[1:3] = label
    with pytest.raises(IndexError, match=r"^2 targets are not among the classes 0 to 2$"):
        CrossEntropy().forward(torch.zeros(3, count), labels)


def test_a_network_that_becomes_a_part_of_another_is_no_root_any_more() -> None:
    inner = build_model({"layers": [{"linear": {"out_features": 3}}]}, (5,))
    outer = Sequential([inner])
    outer.build((5,))
    outer.bind(dtype=torch.float64)
    assert not hasattr(inner, "flat")
    assert outer.forward(normal((5, 2), 0), Mode(train=False))[0].shape == (3, 2)


@pytest.mark.parametrize("kind", [kind for kind, loss in LOSSES.items() if loss.targets == "values"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_values_of_any_type_are_compared_in_the_predictions(kind: str, dtype: torch.dtype) -> None:
    loss, prediction, target = LOSSES[kind](), normal((3, 4), 0).float(), normal((3, 4), 1) > 0
    _, cache = loss.forward(prediction, target.to(dtype))
    gradient = loss.backward(cache)
    _, cache = loss.forward(prediction, target.float())
    assert gradient.dtype == torch.float32
    assert torch.equal(gradient, loss.backward(cache))


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def trained(net: Sequential) -> Tensor:
    """The parameters after two steps of Adam, which begin with a gradient that is already there."""
    rule = OPTIMIZERS["adam"]()  # type: ignore[call-arg]
    for seed in range(2):
        y, cache = net.forward(normal((1, 10, 10, 4), seed).to(net.flat.data.dtype), Mode(train=True))
        net.backward(torch.ones_like(y), cache)
        rule.step(net.flat)
    return net.flat.data


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("prepared", [lambda net: net, fuse], ids=["as it is", "fused"])
def test_a_copy_of_a_network_has_flat_vectors_of_its_own(
    copied: Any, prepared: Callable[[Sequential], Sequential]
) -> None:
    net = prepared(network())
    trained(net)
    before = {name: tensor.clone() for name, tensor in net.state().items()}
    grad = net.flat.grad.clone()
    other = copied(net)
    assert other.flat.decayed == net.flat.decayed
    assert torch.equal(other.flat.grad, grad)
    assert repr(other) == repr(net)
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter.data, before[name]), name
        for view, whole in ((parameter.data, other.flat.data), (parameter.grad, other.flat.grad)):
            assert view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr(), name
    after = trained(other).clone()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state().items())
    assert torch.equal(net.flat.grad, grad)
    assert torch.equal(trained(net), after)
    for one in (net, other):
        one.bind(seed=7)
    assert torch.equal(net.flat.data, other.flat.data)


def test_a_pickle_holds_each_value_once_and_shared_parameters_stay_shared() -> None:
    shared = build_model({"layers": [{"linear": {"out_features": 5}}]}, (5,)).layers["linear_1"]
    net = Sequential({"first": shared, "second": shared})
    net.build((5,))
    net.bind()
    again = pickled(net)
    assert again.layers["first"] is again.layers["second"]
    assert len(again.flat.data) == 30
    big = build_model({"layers": ["flatten", {"linear": {"out_features": 1000}}]}, (1, 10, 10))
    assert len(pickle.dumps(big)) < 2.1 * big.flat.data.numel() * 4  # data and gradient


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
def test_a_layer_can_be_copied_out_of_its_network(copied: Any) -> None:
    net = network()
    layer: Any = net.layers["conv2d_1"]
    other = copied(layer)
    assert torch.equal(other.weight.data, layer.weight.data)
    assert other.weight.data.untyped_storage().nbytes() < net.flat.data.untyped_storage().nbytes()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_without_a_schedule_has_the_optimizers_rate(kind: str) -> None:
    flats = []
    for rates in ((), (0.03,)):
        net = network()
        net.flat.grad.copy_(normal(tuple(net.flat.grad.shape), 0))
        OPTIMIZERS[kind](lr=0.03).step(net.flat, *rates)  # type: ignore[call-arg]
        flats.append(net.flat.data)
    assert torch.equal(*flats)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("warmup", [6, 9])
def test_a_run_may_end_in_its_warmup(kind: str, warmup: int) -> None:
    """The rate rises in equal steps towards what the schedule starts from."""
    run = RunLength(steps_per_epoch=3, epochs=2)
    found = [SCHEDULES[kind](warmup_steps=warmup)(0.5, step, run) for step in range(run.steps)]
    start = 0.5 / 25 if kind == "one_cycle" else 0.5
    assert found == pytest.approx([start * (step + 1) / (warmup + 1) for step in range(run.steps)])


def test_a_run_of_no_steps_divides_by_nothing() -> None:
    nothing = RunLength(steps_per_epoch=0, epochs=1)
    assert Cosine()(0.5, 0, nothing) == 0.5
    assert OneCycle()(0.5, 0, nothing) == 0.02

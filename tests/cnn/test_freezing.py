"""Frozen layers: training leaves their parameters and statistics as they are, and the rest trains as in PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cnn import Mode, Parameter, Sequential, build_model
from cnn.gradients.finite_differences import finite_differences, relative_error
from cnn.graphs.fusion import fuse
from cnn.layer import Layer
from cnn.layers.norm import BatchNorm
from cnn.losses import CrossEntropy
from cnn.optimizers import OPTIMIZERS
from runners.data.batches import Batch
from tests.classifier import classifier, train_step
from tests.cnn.oracle import copy_state, randomised, sequence, tensors_of, theirs

SHAPE = (2, 6, 6)
BODY = [{"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}, "batch_norm", "relu"]
LAYERS: list[Any] = [
    {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1, "name": "stem"}},
    "batch_norm",
    "relu",
    {"residual": {"body": [*BODY, {"conv2d": {"out_channels": 4, "kernel_size": 1}}]}},
    {"concat": {"branches": [BODY, ["identity"]]}},
    {"max_pool2d": {"kernel_size": 2}},
    "flatten",
    {"linear": {"out_features": 3}},
]
FROZEN = {
    "the beginning": {"stem", "batch_norm_1"},
    "all but the last layer": {"stem", "batch_norm_1", "residual_1", "concat_1"},
    "the middle": {"residual_1"},
    "a part of a body": {"residual_1.body.batch_norm_1", "residual_1.body.conv2d_2"},
    "a branch": {"concat_1.1"},
    "the end": {"linear_1"},
    "statistics": {"batch_norm_1", "residual_1.body.batch_norm_1", "concat_1.1.batch_norm_1"},
    "nothing": set(),
}
OPTIMIZERS_THERE = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.01),
}


def network(frozen: set[str]) -> Sequential:
    net = randomised(build_model({"layers": LAYERS}, SHAPE))
    net.freeze(frozen)
    return net


def is_frozen(name: str, frozen: set[str]) -> bool:
    return any(name.startswith(f"{layer}.") for layer in frozen)


def peer(net: Sequential, frozen: set[str]) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A torch network with the same weights and layers frozen, and its parameters with and without weight decay."""
    module = sequence(LAYERS, SHAPE).double()
    copy_state(net, module)
    module.train()
    own = [(name, tensor) for name, tensor in tensors_of(net) if isinstance(tensor, Parameter)]
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": 0.1}, {"params": [], "weight_decay": 0.0}]
    for (name, parameter), theirs_ in zip(own, module.parameters(), strict=True):
        theirs_.requires_grad_(not is_frozen(name, frozen))
        groups[not parameter.decay]["params"].append(theirs_)
    norms = [(name, layer) for name, layer in net.named_layers() if isinstance(layer, BatchNorm)]
    there = [inner for inner in module.modules() if isinstance(inner, nn.BatchNorm2d)]
    for (name, _), norm in zip(norms, there, strict=True):
        norm.train(not is_frozen(f"{name}.", frozen))
    return module, groups


@pytest.mark.parametrize("optimizer", OPTIMIZERS_THERE)
@pytest.mark.parametrize("case", FROZEN)
def test_training_is_that_of_pytorch_without_gradients_of_what_is_frozen(case: str, optimizer: str) -> None:
    frozen = FROZEN[case]
    net = network(frozen)
    before = {name: tensor.clone() for name, tensor in net.state().items()}
    module, groups = peer(net, frozen)
    momentum: dict[str, Any] = {"momentum": 0.9} if optimizer == "sgd" else {}
    rule = OPTIMIZERS[optimizer](lr=0.01, weight_decay=0.1, **momentum)  # type: ignore[call-arg]
    task, other = classifier(net, CrossEntropy(), rule), OPTIMIZERS_THERE[optimizer](groups)
    generator = torch.Generator().manual_seed(5)
    for _ in range(5):
        x = torch.randn(*SHAPE, 8, generator=generator, dtype=torch.float64)
        batch = Batch(x, torch.randint(0, 3, (8,), generator=generator))
        train_step(task, [batch], max_norm=0.5)
        other.zero_grad()
        nn.functional.cross_entropy(module(theirs(batch.x)), batch.targets).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        other.step()
    expected = [tensor for key, tensor in module.state_dict().items() if not key.endswith("num_batches_tracked")]
    for (name, tensor), wanted in zip(tensors_of(net), expected, strict=True):
        assert relative_error(tensor.data, wanted) < 1e-9, name
        if is_frozen(name, frozen) or not name.endswith(".bias"):  # a bias before a batch norm has no gradient
            assert torch.equal(tensor.data, before[name]) == is_frozen(name, frozen), name
    assert {len(vector) for vector in rule.kept.values()} == {
        sum(p.numel() for p in module.parameters() if p.requires_grad)
    }


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("case", FROZEN)
def test_gradients_are_those_of_finite_differences(case: str, fused: bool) -> None:
    frozen = FROZEN[case]
    net = network(frozen)
    run = fuse(net) if fused else net
    x = torch.randn(*SHAPE, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dy = torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    _, cache = run.dry_run(x, Mode(train=True))
    dx = run.backward(dy, cache)
    assert dx is not None

    def value() -> float:
        return float((dy * run.dry_run(x, Mode(train=True, keep_cache=False))[0]).sum())

    assert relative_error(dx, finite_differences(value, x)) < 1e-6
    for name, parameter in net.named_parameters():
        if is_frozen(name, frozen):
            assert not parameter.grad.any(), name
        else:
            assert relative_error(parameter.grad, finite_differences(value, parameter.data), 1e-6) < 1e-5, name


def test_nothing_runs_backward_below_the_lowest_layer_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(FROZEN["all but the last layer"])
    asked: list[tuple[str, dict[str, bool]]] = []
    for name, layer in net.named_layers():

        def noted(*args: Any, name: str = name, real: Any = layer.backward, **needs: bool) -> Any:
            asked.append((name, needs))
            return real(*args, **needs)

        monkeypatch.setattr(layer, "backward", noted)
    x = torch.randn(*SHAPE, 3, dtype=torch.float64)
    y, cache = net.forward(x, Mode(train=True))
    assert net.backward(torch.ones_like(y), cache, need_dx=False) is None
    assert asked == [("", {"need_dx": False}), ("linear_1", {"need_dx": False, "need_dparams": True})]


def test_the_end_of_a_frozen_network_can_be_left_out() -> None:
    whole = network({"stem"})
    net = Sequential([Sequential(dict(whole.layers))])
    net.input_shape = whole.input_shape
    next(iter(net.layers.values())).frozen = True
    assert [layer.frozen for layer in net.without_last("linear").layers.values()] == [True]


def test_a_name_that_no_layer_has_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no layer stem_1: did you mean stem"):
        network({"stem_1"})


def test_freezing_moves_no_value() -> None:
    net, plain = network(FROZEN["the middle"]), network(set())
    assert all(torch.equal(net.state()[name], tensor) for name, tensor in plain.state().items())
    assert torch.equal(plain.flat.trained.data, plain.flat.data)
    assert plain.flat.trained.decayed == plain.flat.decayed
    frozen = sum(p.numel for name, p in net.named_parameters() if name.startswith("residual_1."))
    assert len(net.flat.trained.data) == len(net.flat.data) - frozen
    inner: Layer = net.layers["residual_1"]
    assert not inner.is_trained()
    assert net.is_trained()

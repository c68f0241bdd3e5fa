"""Adversarial losses, the penalty on slopes, and gradients through the discriminator, against autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnn import Mode, Sequential, build_model, ops
from cnn.averaging import MovingAverage
from cnn.gradients.finite_differences import finite_differences, relative_error
from cnn.graphs.adversarial import Judged
from cnn.losses import LOSSES, AdversarialLoss, LipschitzPenalty
from tests.cnn.oracle import Entry, copy_state, ours, randomised, sequence, theirs

KINDS = [kind for kind, loss in LOSSES.items() if issubclass(loss, AdversarialLoss)]
KERNEL_SETS: tuple[ops.KernelSet, ...] = ("compiled", "reference")
LATENT, CLASSES, BATCH = 5, 3, 6


def scores(seed: int, shape: tuple[int, ...] = (1, 9)) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def theirs_of(kind: str, z: Tensor, side: str, smoothing: float) -> Tensor:
    """The loss of one side by autograd's functions: of data, of generated examples, or of the generator."""
    aim = {"data": 1 - smoothing, "generated": 0.0, "generator": 1.0}[side]
    found: Tensor
    if kind == "non_saturating":
        found = functional.binary_cross_entropy_with_logits(z, torch.full_like(z, aim))
    elif kind == "least_squares":
        found = functional.mse_loss(z, torch.full_like(z, aim))
    elif side == "generator":
        found = -z.mean()
    else:
        sign = 1 if side == "data" else -1
        found = functional.relu(1 - sign * z).mean() if kind == "hinge" else -sign * z.mean()
    return found


@pytest.mark.parametrize("side", ["data", "generated", "generator"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_values_and_gradients_are_autograds(kind: str, side: str, smoothing: float) -> None:
    smoothed = kind in ("non_saturating", "least_squares")
    loss: Any = LOSSES[kind](**({"label_smoothing": smoothing} if smoothed else {}))
    z = scores(3)
    leaf = z.clone().requires_grad_()
    expected = theirs_of(kind, leaf, side, smoothing if smoothed else 0.0)
    expected.backward()
    real = torch.full_like(z, float(side == "data"))
    value, cache = loss.of_generator(z) if side == "generator" else loss.forward(z, real)
    assert leaf.grad is not None
    assert torch.allclose(value, expected, rtol=1e-12)
    assert relative_error(loss.backward(cache), leaf.grad) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_is_the_mean_of_both_kinds_of_scores(kind: str) -> None:
    loss, z, real = LOSSES[kind](), scores(4, (1, 8)), torch.tensor([[1, 0] * 4], dtype=torch.float64)
    parts = [loss.forward(z[:, first::2], real[:, first::2]) for first in (0, 1)]
    value, cache = loss.forward(z, real)
    assert torch.allclose(value, (parts[0][0] + parts[1][0]) / 2, rtol=1e-12)
    gradient = loss.backward(cache)
    for first in (0, 1):
        assert torch.allclose(gradient[:, first::2], loss.backward(parts[first][1]) / 2, rtol=1e-12)


def test_the_penalty_is_that_of_slopes_above_one() -> None:
    loss, distances = LipschitzPenalty(), torch.tensor([0.5, 1.0, 4.0, 2.0], dtype=torch.float64)
    z = torch.tensor([[3.0, 0.2, 1.0, -5.0, 1.0, 0.0, 0.5, 5.0]], dtype=torch.float64)
    value, cache = loss.forward(z, distances)
    slopes = torch.tensor([4.0, 0.2, 0.125, 5.0])
    assert float(value) == pytest.approx(float((slopes - 1).clamp(min=0).square().mean()))
    expected = finite_differences(lambda: float(loss.forward(z, distances)[0]), z)
    assert relative_error(loss.backward(cache), expected) <= 1e-7


def test_a_pair_at_the_same_place_has_no_slope() -> None:
    """Its scores may differ all the same, by the noise of dropout."""
    loss, z = LipschitzPenalty(), torch.tensor([[2.0, 5.0, 1.0, 0.0]], dtype=torch.float64)
    value, cache = loss.forward(z, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert float(value) == (5 - 1) ** 2 / 2
    assert loss.backward(cache).tolist() == [[0.0, 4.0, -0.0, -4.0]]


GENERATOR: list[Entry] = [
    {"linear": {"out_features": 4 * 9, "bias": False}},  # a bias before a normalisation has no gradient
    {"reshape": {"shape": [4, 3, 3]}},
    "batch_norm",
    "relu",
    {"conv_transpose2d": {"out_channels": 1, "kernel_size": 4, "stride": 2, "padding": 1}},
    "tanh",
]
DISCRIMINATOR: list[Entry] = [
    {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
    "batch_norm",
    {"leaky_relu": {"negative_slope": 0.2}},
    "flatten",
    {"linear": {"out_features": 1}},
]


def pair(classes: int) -> tuple[Sequential, Sequential, nn.Module, nn.Module]:
    """A generator and a discriminator, for this many classes, and torch's twins with the same weights."""
    shapes = (LATENT + classes,), (1 + classes, 6, 6)
    networks = [
        randomised(build_model({"layers": layers}, shape), seed=seed)
        for seed, (layers, shape) in enumerate(zip((GENERATOR, DISCRIMINATOR), shapes, strict=True))
    ]
    twins = [sequence(layers, shape).double() for layers, shape in zip((GENERATOR, DISCRIMINATOR), shapes, strict=True)]
    for network, twin in zip(networks, twins, strict=True):
        copy_state(network, twin.train())
    return networks[0], networks[1], twins[0], twins[1]


@pytest.mark.parametrize("classes", [0, CLASSES])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernels", KERNEL_SETS)
def test_the_generators_gradient_passes_through_the_discriminator(
    kernels: ops.KernelSet, kind: str, classes: int
) -> None:
    generator, discriminator, their_generator, their_discriminator = pair(classes)
    labels = torch.eye(CLASSES, dtype=torch.float64)[:, torch.arange(BATCH) % CLASSES] if classes else None
    z = scores(5, (LATENT, BATCH))
    z = z if labels is None else torch.cat([z, labels])
    loss: Any = LOSSES[kind]()
    kept = scores(6, tuple(discriminator.flat.grad.shape))
    discriminator.flat.grad.copy_(kept)
    with ops.kernels(kernels):
        found, cache = Judged(generator, discriminator, labels).forward(z, Mode(train=True))
        value, loss_cache = loss.of_generator(found)
        dz = Judged(generator, discriminator, labels).backward(loss.backward(loss_cache), cache)
    leaf = theirs(z).requires_grad_()
    made = their_generator(leaf)
    if labels is not None:
        made = torch.cat([made, theirs(labels)[:, :, None, None].expand(-1, -1, 6, 6)], 1)
    expected = theirs_of(kind, their_discriminator(made), "generator", 0.0)
    expected.backward()
    assert torch.allclose(value, expected, rtol=1e-9)
    assert dz is not None
    assert leaf.grad is not None
    assert relative_error(dz, ours(leaf.grad)) <= 1e-9
    for (_, parameter), twin in zip(generator.named_parameters(), their_generator.parameters(), strict=True):
        assert twin.grad is not None
        assert relative_error(parameter.grad, twin.grad) <= 1e-9
    assert torch.equal(discriminator.flat.grad, kept)


def test_a_moving_average_forgets_the_initial_weights_and_follows_buffers() -> None:
    network = randomised(build_model({"layers": ["batch_norm", {"linear": {"out_features": 3}}]}, (4,)))
    average = MovingAverage(network, 0.5)
    expected, first = average.graph.flat.data.clone(), network.flat.data.clone()
    for step in range(1, 4):
        network.flat.data += step
        network.layers["batch_norm_1"].running_mean.data += step  # type: ignore[attr-defined]
        average.update(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.flat.data
    assert torch.allclose(average.graph.flat.data, expected, rtol=1e-12)
    assert not torch.equal(expected, first)
    for (name, buffer), (_, current) in zip(average.graph.named_buffers(), network.named_buffers(), strict=True):
        assert torch.equal(buffer.data, current.data), name
        assert buffer.data.data_ptr() != current.data.data_ptr()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_autograd_are_taken_as_their_values(kind: str) -> None:
    loss: Any = LOSSES[kind]()
    value, cache = loss.of_generator(scores(3).requires_grad_())
    assert not value.requires_grad
    assert not loss.backward(cache).requires_grad

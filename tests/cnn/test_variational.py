"""Variational autoencoders against autograd: the reparametrised sample, the divergence and the bound."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from cnn import Mode, ShapeError, build_model, losses, ops
from cnn.gradients.finite_differences import directional, relative_error
from cnn.graphs.variational import Variational
from tests.cnn.oracle import Entry, copy_state, ours, randomised, sequence, theirs

LATENT, BATCH, SHAPE = 3, 5, (1, 4, 4)
ENCODER: list[Entry] = [
    {"conv2d": {"out_channels": 4, "kernel_size": 3}},
    "silu",
    "flatten",
    {"linear": {"out_features": 2 * LATENT}},
]
DECODER: list[Entry] = [
    {"linear": {"out_features": 16, "bias": False}},  # a bias before a normalisation has no gradient
    "batch_norm",
    "tanh",
    {"reshape": {"shape": [1, 4, 4]}},
]


def networks() -> Variational:
    encoder = randomised(build_model({"layers": ENCODER}, SHAPE), seed=1)
    decoder = randomised(build_model({"layers": DECODER}, (LATENT,)), seed=2)
    return Variational(encoder, decoder)


def pictures(seed: int = 3) -> Tensor:
    return torch.rand((*SHAPE, BATCH), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("kernels", ["compiled", "reference"])
def test_the_bound_and_its_gradients_are_autograds(kernels: ops.KernelSet, beta: float, train: bool) -> None:
    whole, x = networks(), pictures()
    twins = [sequence(ENCODER, SHAPE).double(), sequence(DECODER, (LATENT,)).double()]
    for network, twin in zip(whole.layers.values(), twins, strict=True):
        copy_state(network, twin)  # type: ignore[arg-type]
        twin.train(train)
    bound = losses.NegativeELBO(beta)
    noise = torch.randn(LATENT, BATCH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    with ops.kernels(kernels):
        y, cache = whole.forward(x, Mode(train, generator=torch.Generator().manual_seed(4)))
        value, loss_cache = bound.forward(y, x.flatten(0, -2))
        dx = whole.backward(bound.backward(loss_cache), cache)
    leaf = theirs(x).requires_grad_()
    mean, log_variance = twins[0](leaf).chunk(2, 1)
    posterior = Normal(mean, (log_variance / 2).exp())
    logits = twins[1](mean + posterior.scale * theirs(noise))
    divergence = kl_divergence(posterior, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(1)
    likelihood = functional.binary_cross_entropy_with_logits(logits, leaf.detach(), reduction="sum") / BATCH
    expected = likelihood + beta * divergence.mean()
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-12)
    assert torch.allclose(losses.kl_divergence(y[-2 * LATENT :]), divergence, rtol=1e-9)
    assert dx is not None
    assert leaf.grad is not None
    assert relative_error(dx, ours(leaf.grad)) <= 1e-9
    for network, twin in zip(whole.layers.values(), twins, strict=True):
        for (name, parameter), their in zip(network.named_parameters(), twin.parameters(), strict=True):
            assert their.grad is not None
            assert relative_error(parameter.grad, their.grad) <= 1e-9, name


@pytest.mark.parametrize("train", [True, False])
def test_finite_differences_agree_with_the_noise_of_the_mode(train: bool) -> None:
    mode = Mode(train, generator=torch.Generator().manual_seed(5))
    errors = directional(networks(), pictures(), mode)
    assert max(errors.values()) <= 1e-6, errors


def test_the_divergence_of_a_standard_normal_is_zero_and_small_ones_are_exact() -> None:
    assert not losses.kl_divergence(torch.zeros(6, 2)).any()
    tiny = torch.full((2, 1), 1e-6, dtype=torch.float32)
    assert float(losses.kl_divergence(tiny)) == pytest.approx(0.5 * (1e-12 + 0.5e-12), rel=0.1)


def test_an_encoder_with_an_odd_number_of_outputs_is_refused() -> None:
    encoder = build_model({"layers": ["flatten", {"linear": {"out_features": 5}}]}, SHAPE)
    decoder = build_model({"layers": [{"linear": {"out_features": 16}}]}, (2,))
    with pytest.raises(ShapeError, match="a mean and a variance for each latent value, not 5 values"):
        Variational(encoder, decoder).output_shape(SHAPE)

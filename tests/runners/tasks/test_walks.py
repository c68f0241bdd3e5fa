"""Walks through a latent space: arcs whose length is right, and pictures that tasks draw along them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnn import build_model
from cnn.losses import LOSSES
from runners.tasks.gan import GAN
from runners.tasks.generative import Generative
from runners.tasks.vae import VAE
from runners.tasks.walks import STEPS, STOPS, endless, spherical


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def length(z: Tensor) -> Tensor:
    return z.square().sum(0).sqrt()


def test_an_arc_on_the_sphere_is_passed_at_an_even_pace() -> None:
    p, q = (z / length(z) for z in (normal(7, 20, seed=0), normal(7, 20, seed=1)))
    angle = (p * q).sum(0).arccos()
    for t in (0.0, 0.2, 0.5, 0.9, 1.0):
        z = spherical(p, q, t)
        assert torch.allclose(length(z), torch.ones(20, dtype=torch.float64))
        assert torch.allclose((p * z).sum(0).clamp(-1, 1).arccos(), t * angle, atol=1e-6)


def test_the_ends_are_the_vectors_themselves_whatever_their_lengths() -> None:
    p, q = normal(5, 9, seed=2), 3 * normal(5, 9, seed=3)
    assert torch.allclose(spherical(p, q, 0), p)
    assert torch.allclose(spherical(p, q, 1), q)


@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0, -0.5])
def test_parallel_vectors_are_joined_by_a_straight_line(factor: float) -> None:
    """Always so where the latent space has one dimension."""
    p = normal(1, 6, seed=4)
    assert torch.allclose(spherical(p, factor * p, 0.25), 0.75 * p + 0.25 * factor * p)


def test_lengths_of_high_dimensional_normal_vectors_are_kept() -> None:
    p, q = normal(200, 50, seed=5), normal(200, 50, seed=6)
    assert length(spherical(p, q, 0.5)) == pytest.approx(math.sqrt(200), rel=0.15)
    assert float((length((p + q) / 2) / math.sqrt(200)).mean()) == pytest.approx(math.sqrt(0.5), rel=0.05)


def test_a_walk_passes_every_stop_and_ends_a_step_before_its_start() -> None:
    stops = [normal(6, 4, seed=seed) for seed in range(3)]
    frames = [*endless(stops, 5)]
    assert len(frames) == 15
    for number, stop in enumerate(stops):
        assert torch.allclose(frames[5 * number], stop)
    assert torch.allclose(frames[-1], spherical(stops[2], stops[0], 0.8))


def network(shape: tuple[int, ...], inputs: int, *last: str) -> Any:
    layers = [{"linear": {"out_features": math.prod(shape)}}, *last, {"reshape": {"shape": list(shape)}}]
    return build_model({"layers": layers}, (inputs,), seed=1)


def vae(shape: tuple[int, ...]) -> VAE:
    task = VAE(latent_size=3)
    encoder = build_model({"layers": ["flatten", {"linear": {"out_features": 6}}]}, shape)
    task.build({"encoder": encoder, "decoder": network(shape, 3)}, LOSSES["bce_with_logits"]())
    return task


def gan(shape: tuple[int, ...], classes: int) -> GAN:
    task = GAN(latent_size=3, conditional=bool(classes))
    judging = (shape[0] + classes, *shape[1:])
    discriminator = build_model({"layers": ["flatten", {"linear": {"out_features": 1}}]}, judging)
    graphs = {"generator": network(shape, 3 + classes, "tanh"), "discriminator": discriminator}
    task.build(graphs, LOSSES["non_saturating"]())
    return task


@pytest.mark.parametrize(
    ("task", "columns", "rows"),
    [(vae((1, 4, 4)), 8, 8), (gan((3, 4, 4), 0), 8, 8), (gan((1, 4, 4), 3), 3, 10), (gan((1, 4, 4), 12), 10, 10)],
    ids=["vae", "gan", "3 classes", "12 classes"],
)
def test_the_grid_of_samples(task: Generative, columns: int, rows: int) -> None:
    sheet = task.snapshot()
    assert sheet is not None
    assert sheet.shape[:2] == (6 * rows - 2, 6 * columns - 2)
    again = task.snapshot()
    assert again is not None
    assert np.array_equal(sheet, again)
    if 0 < task.conditional_classes <= 10:
        in_columns = task.sample(columns, only=2)[..., 2].movedim(0, -1).numpy()
        assert np.abs(sheet[:4, 12:16] / 255 - in_columns[..., 0]).max() < 0.01


@pytest.mark.parametrize("task", [vae((1, 4, 4)), gan((3, 4, 4), 4)], ids=["vae", "conditional"])
def test_the_final_pictures(task: Generative) -> None:
    drawn = task.pictures()
    assert list(drawn) == ["samples", "walk"]
    assert len(drawn["samples"]) == 1
    walk = drawn["walk"]
    assert len(walk) == STOPS * STEPS
    assert {frame.shape[:2] for frame in walk} == {(22, 22)}
    steps = [np.abs(a.astype(int) - b).mean() for a, b in zip(walk, [*walk[1:], walk[0]], strict=True)]
    assert 0 < max(steps) < 4 * np.mean(steps)  # also from the last frame to the first


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 4, 4, 4), (16,)], ids=str)
def test_what_is_no_picture_is_not_drawn(shape: tuple[int, ...]) -> None:
    task = vae(shape)
    assert task.snapshot() is None
    assert task.pictures() == {}

"""Steps and evaluations of variational autoencoders."""

from __future__ import annotations

import math

import pytest
import torch

from cnn.losses import LOSSES
from runners.data.batches import Batch
from runners.data.dataset import Description
from runners.tasks.noise import fixed_noise
from runners.tasks.sums import Sums
from runners.tasks.vae import VAE
from tests.generators import LATENT, pictures, step, vae


def take(task: VAE, index: int, batches: list[Batch]) -> dict[str, float]:
    sums = Sums()
    task.train_step(batches, step(index), sums)
    return sums.means("train")


def test_a_step_moves_both_networks_and_its_metrics_add_up() -> None:
    task = vae(beta=0.5)
    before = {name: graph.flat.data.clone() for name, graph in task.graphs.items()}
    found = take(task, 0, [pictures(8, seed=5, low=0.0)])
    for name, graph in task.graphs.items():
        assert not torch.equal(graph.flat.data, before[name])
    assert found["train/loss"] == pytest.approx(found["train/reconstruction"] + 0.5 * found["train/kl"], rel=1e-12)
    assert found["train/elbo"] == pytest.approx(-found["train/reconstruction"] - found["train/kl"], rel=1e-12)


def test_training_raises_the_bound() -> None:
    task, batch = vae(binarize=False), pictures(16, low=0.0)
    bounds = [take(task, 0, [batch])["train/elbo"] for _ in range(50)]
    assert bounds[-1] > bounds[0] + 0.5


def test_a_group_of_batches_is_one_large_batch() -> None:
    """Without noise: z is the mean, as its variance is 0."""
    tasks = [vae(binarize=False), vae(binarize=False)]
    batch = pictures(9, low=0.0)
    parts = [Batch(batch.x[..., :4], batch.targets[:4]), Batch(batch.x[..., 4:], batch.targets[4:])]
    for task, group in zip(tasks, ([batch], parts), strict=True):
        last = task.graphs["encoder"].layers["linear_2"]
        last.weight.data[LATENT:] = 0  # type: ignore[attr-defined]
        last.bias.data[LATENT:] = -200  # type: ignore[attr-defined]
        take(task, 0, group)
    for name in VAE.networks:
        whole, grouped = (task.graphs[name].flat.grad for task in tasks)
        assert torch.allclose(whole, grouped, rtol=1e-9, atol=1e-14)


def test_beta_is_reached_after_its_warm_up() -> None:
    task = vae(beta=2.0, beta_warmup_steps=4)
    weights = []
    for index in (0, 1, 3, 9):
        found = take(task, index, [pictures(8, seed=5, low=0.0)])
        weights.append((found["train/loss"] - found["train/reconstruction"]) / found["train/kl"])
    assert weights == pytest.approx([0.5, 1.0, 2.0, 2.0])


def test_an_evaluation_has_the_same_noise_however_it_is_batched() -> None:
    task, whole = vae(), pictures(10, low=0.0)
    results = []
    for size in (10, 3):
        sums = Sums()
        for first in range(0, 10, size):
            task.evaluate(Batch(whole.x[..., first : first + size], whole.targets[first : first + size], first), sums)
        results.append(sums.means("val"))
    assert results[0] == pytest.approx(results[1], rel=1e-9)


def test_noise_of_examples_is_independent_of_each_other_and_of_the_seed() -> None:
    like = torch.empty(500, 8, dtype=torch.float64)
    rows = torch.cat([fixed_noise(torch.randn, like, 0, seed) for seed in (0, 1)], 1).T
    correlation = torch.corrcoef(rows) - torch.eye(16)
    assert correlation.abs().max() < 6 / math.sqrt(500)
    uniform = fixed_noise(torch.rand, like, 3)
    assert 0.45 < float(uniform.mean()) < 0.55


def test_reconstructions_and_samples_are_probabilities() -> None:
    task = vae()
    for made in (task.predict(pictures(4, low=0.0).x), task.sample(4)):
        assert made.shape == (1, 6, 6, 4)
        assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_what_does_not_fit_is_a_fault() -> None:
    made = vae()
    faults = made.faults(made.graphs, LOSSES["l2"](), Description((1, 8, 8)))
    problems = {fault.place: fault.problem for fault in faults}
    assert problems["loss.name"] == "l2 is not the loss of Bernoulli pixels, give bce_with_logits"
    assert "gives [1, 6, 6], but [1, 8, 8] is needed: a logit for each pixel" in problems["decoder.layers"]
    wider = VAE(latent_size=LATENT + 1).faults(made.graphs, None, Description((1, 6, 6)))
    assert "gives [10], but [12] is needed: a mean and a variance for each of 6 latent values" in wider[0].problem

"""Steps of an adversarial pair: which network they change, against a torch twin, and what is saved between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cnn.losses import LOSSES, Wasserstein
from cnn.optimizers import SGD
from runners.data.batches import Batch
from runners.data.dataset import Description
from runners.tasks.gan import GAN, GAP
from runners.tasks.sums import Sums
from runners.tasks.task import EVALUATION
from tests.cnn.oracle import copy_state, sequence, theirs
from tests.generators import CLASSES, DATA, LATENT, LAYERS, built, gan, pictures, step

KINDS = ["non_saturating", "least_squares", "hinge", "wasserstein"]


def take(task: GAN, index: int, batches: list[Batch]) -> float:
    """The loss of a step, which is of the network whose turn it is."""
    sums = Sums()
    task.train_step(batches, step(index), sums)
    return sums.means("train")[f"train/{task.variant(index)}_loss"]


class Twin:
    """The same pair in torch, trained with autograd and torch's optimizers."""

    def __init__(self, task: GAN, kind: str, critic_steps: int) -> None:
        self.task, self.kind, self.critic_steps = task, kind, critic_steps
        shapes = task.input_shapes(DATA)
        self.networks = {name: sequence(LAYERS[name], shapes[name]).double() for name in task.networks}
        for name, network in self.networks.items():
            copy_state(task.graphs[name], network.train())
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.5, 0.999))
            for name, network in self.networks.items()
        }

    def step(self, index: int, batch: Batch) -> float:
        name = "generator" if index % (self.critic_steps + 1) == self.critic_steps else "discriminator"
        generator = torch.Generator().manual_seed(index)
        z = torch.randn(LATENT, len(batch), generator=generator, dtype=torch.float64)
        labels = functional.one_hot(batch.targets, CLASSES).double() if self.task.conditional else None
        self.optimizers[name].zero_grad()
        made = self.networks["generator"](theirs(z) if labels is None else torch.cat([theirs(z), labels], 1))
        if name == "generator":
            loss = self.of(self.score(made, labels), "generator")
        else:
            made = made.detach()
            real = theirs(batch.x)
            loss = self.of(self.score(real, labels), "data") + self.of(self.score(made, labels), "generated")
            if self.kind == "wasserstein":
                start = torch.rand(len(batch), generator=generator, dtype=torch.float64)[:, None, None, None] * (
                    1 - GAP
                )
                a, b = (real + at * (made - real) for at in (start, start + GAP))
                self.networks["discriminator"].eval()
                both = self.score(torch.cat([a, b]), None if labels is None else torch.cat([labels, labels]))
                self.networks["discriminator"].train()
                za, zb = both[:, 0].chunk(2)
                slope = (za - zb).abs() / (a - b).flatten(1).norm(dim=1)
                loss = loss + 10 * functional.relu(slope - 1).square().mean()
        loss.backward()
        self.optimizers[name].step()
        return loss.item()

    def score(self, x: Tensor, labels: Tensor | None) -> Tensor:
        if labels is not None:
            x = torch.cat([x, labels[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
        found: Tensor = self.networks["discriminator"](x)
        return found

    def of(self, z: Tensor, side: str) -> Tensor:
        from tests.cnn.test_adversarial import theirs_of

        return theirs_of(self.kind, z, side, 0.0)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("critic_steps", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_alternating_steps_follow_a_torch_twin(
    kind: str, critic_steps: int, conditional: bool, kernel_set: str
) -> None:
    task = gan(kind, critic_steps=critic_steps, conditional=conditional)
    twin = Twin(task, kind, critic_steps)
    for index in range(10):
        batch = pictures(8, seed=index)
        assert take(task, index, [batch]) == pytest.approx(twin.step(index, batch), rel=1e-3, abs=1e-6), index


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_changes_its_own_network_and_leaves_the_others_gradient_alone(kind: str) -> None:
    task = gan(kind, critic_steps=2, ema=None)
    names = [task.variant(index) for index in range(6)]
    assert names == ["discriminator", "discriminator", "generator"] * 2
    for index, name in enumerate(names):
        (other,) = {"generator", "discriminator"} - {name}
        flats = {network: task.graphs[network].flat for network in task.networks}
        weights = {network: flat.data.clone() for network, flat in flats.items()}
        gradient = flats[other].grad.copy_(torch.randn_like(flats[other].grad)).clone()
        take(task, index, [pictures(8)])
        assert torch.equal(flats[other].data, weights[other])
        assert torch.equal(flats[other].grad, gradient)
        assert not torch.equal(flats[name].data, weights[name])


def test_a_generator_learns_from_its_discriminator() -> None:
    """The generator's steps lower its own loss, which they can't where no gradient reaches it."""
    task = gan(optimizer=lambda: SGD(lr=0.05))
    losses = [take(task, 1, [pictures(8)]) for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("index", [0, 1])
def test_a_group_of_batches_is_one_step(index: int) -> None:
    """Each batch has its own noise; the gradients are weighted by the share of examples."""
    whole, grouped = gan("least_squares"), gan("least_squares")
    batches = [pictures(2, seed=1), pictures(6, seed=2)]
    name = grouped.variant(index)
    take(grouped, index, batches)
    expected = torch.zeros_like(whole.graphs[name].flat.grad)
    noise = step(index)
    for batch in batches:
        flat = whole.graphs[name].flat
        flat.grad.zero_()
        add = whole._of_generator if name == "generator" else whole._of_discriminator
        add(batch, len(batch) / 8, noise.mode)
        expected += flat.grad
    assert torch.allclose(grouped.graphs[name].flat.grad, expected, rtol=1e-9, atol=1e-15)


def test_the_average_draws_and_is_part_of_the_state() -> None:
    task = gan(ema=0.9)
    for index in range(4):
        take(task, index, [pictures(8)])
    average = task.average
    assert average is not None
    assert average.updates == 2
    drawn = task.sample(3)
    raw, _ = task.graphs["generator"].forward(task.latent(0, 3), EVALUATION)
    assert not torch.allclose(drawn, (raw + 1) / 2)
    other = gan(ema=0.9)
    other.load_state(task.state())
    assert torch.equal(other.sample(3), drawn)
    with pytest.raises(ValueError, match="a saved state with \\[\\] doesn't match the task gan"):
        other.load_state({})
    broken = task.state()
    next(iter(broken["average"].values()))[...] = torch.nan
    with pytest.raises(ValueError, match="isn't made of finite numbers"):
        other.load_state(broken)


@pytest.mark.parametrize("conditional", [False, True])
def test_samples_depend_on_their_number_and_seed_alone(conditional: bool) -> None:
    task = gan(conditional=conditional)
    many = task.sample(300)
    assert many.shape == (1, 6, 6, 300)
    assert torch.allclose(task.sample(7), many[..., :7], rtol=1e-12)
    assert torch.allclose(task.sample(7, first=280), many[..., 280:287], rtol=1e-12)
    assert not torch.allclose(task.sample(7, seed=1), many[..., :7])
    if conditional:
        twos = task.sample(6, only=2)
        assert torch.allclose(twos[..., 2::3], many[..., 2:6:3], rtol=1e-12)
        assert not torch.allclose(twos[..., 0], many[..., 0])


def test_evaluation_is_the_same_however_it_is_batched() -> None:
    task, whole = gan(conditional=True), pictures(10)
    results = []
    for size in (10, 3):
        sums = Sums()
        for first in range(0, 10, size):
            batch = Batch(whole.x[..., first : first + size], whole.targets[first : first + size], first)
            task.evaluate(batch, sums)
        results.append(sums.means("val"))
    assert results[0] == pytest.approx(results[1], rel=1e-9)


def test_what_does_not_fit_is_a_fault() -> None:
    task = GAN(latent_size=4, conditional=True)
    assert task.input_shapes(Description(None, None)) == {}
    assert task.input_shapes(Description((1, 28, 28), 10)) == {"generator": (14,), "discriminator": (11, 28, 28)}
    made: Any = gan()
    problems = {
        fault.place: fault.problem for fault in made.faults(made.graphs, LOSSES["l2"](), Description((3, 8, 8)))
    }
    assert problems["generator.layers"].startswith("the last, tanh_1, gives [1, 6, 6], but [3, 8, 8] is needed")
    assert (
        problems["loss.name"] == "l2 doesn't judge a generator, give non_saturating, least_squares, hinge, wasserstein"
    )


def test_a_wasserstein_critic_without_penalty() -> None:
    plain, penalised = (built(GAN(latent_size=LATENT), Wasserstein(penalty)) for penalty in (0.0, 1000.0))
    assert isinstance(plain, GAN)
    assert isinstance(penalised, GAN)
    for task in (plain, penalised):  # steep enough to be penalised
        task.graphs["discriminator"].flat.data.mul_(3)
    assert take(plain, 0, [pictures(8)]) < take(penalised, 0, [pictures(8)])

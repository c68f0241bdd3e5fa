"""A pair of steps of `experiment=dcgan_mnist`, one of each network, next to the same in torch.nn.

    python -m benchmarks.gan_step [--batches 64,128] [--threads 1,2] [--rounds 5] [--seconds 0.4] [--no-compile]
                                  [--json]

torch runs eager and with torch.compile, each in both memory formats; the ratio is to the fastest of the four in each
round, above 1 if ours is faster. --json has what benchmarks.train_step has, and each contiguous side under a second
name, such as "eager, contiguous". Images are those that the discriminator sees of the data, and its generator's batch.
Each number of threads is measured in its own process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.sides import TORCH, Way, sides
from benchmarks.timing import Row, Step, by_threads, compare, one_and_all, parser, report, take_turns
from cnn import Mode, build_model
from cnn.arguments import construct_named
from cnn.losses import LOSSES
from cnn.optimizers import OPTIMIZERS
from cnn.schedules import Constant, RunLength
from runners.config.saved import composed
from runners.data.batches import Batch
from runners.data.dataset import Description
from runners.tasks.gan import GAN
from runners.tasks.registry import TASKS
from runners.tasks.task import Step as TrainingStep
from runners.training.capturing import Steps

SHAPE = (1, 28, 28)
COLUMNS = {
    "batch": ("batch", ""),
    "threads": ("threads", ""),
    "ours": ("ours images/s", ",.0f"),
    **{side: (side, ",.0f") for side in TORCH},
    "ratio_to_fastest": ("to the fastest", ".2f"),
}


def data(batch: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(*SHAPE, batch, generator=generator) * 2 - 1
    return Batch(x, torch.randint(0, 10, (batch,), generator=generator))


def our_task() -> GAN:
    """The experiment's task with its networks and optimizers."""
    config = composed(["experiment=dcgan_mnist"])
    task = construct_named(TASKS, config["task"], "task")
    shapes = task.input_shapes(Description(SHAPE, 10))
    task.build(
        {name: build_model(config[name], shapes[name]) for name in task.networks},
        construct_named(LOSSES, config["loss"], "loss"),
    )
    optimizer = config["optimizer"]
    task.train_with({name: (construct_named(OPTIMIZERS, optimizer, ""), Constant()) for name in task.networks})
    assert isinstance(task, GAN)
    return task


def our_steps(batch: int) -> Step:
    task, examples = our_task(), data(batch)
    mode, steps = Mode(train=True, generator=torch.Generator().manual_seed(0)), Steps(task)

    def both() -> None:
        for index in range(task.critic_steps + 1):
            steps.take([examples], TrainingStep(index, RunLength(2, 1), mode))

    return both


class Torch:
    """The experiment's pair in torch.nn; its layers are read from the same config."""

    def __init__(self, batch: int, way: Way) -> None:
        config, task = composed(["experiment=dcgan_mnist"]), our_task()
        shapes = task.input_shapes(Description(SHAPE, 10))
        self.latent_size, self.batch = task.latent_size, batch
        self.x = way.images(data(batch).x)
        self.networks = {name: way.network(modules(config[name]["layers"], shapes[name])) for name in task.networks}
        lr, betas = config["optimizer"]["lr"], tuple(config["optimizer"]["betas"])
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr, betas, fused=True)
            for name, network in self.networks.items()
        }
        self.average = [parameter.detach().clone() for parameter in self.networks["generator"].parameters()]
        losses = {"discriminator": self.of_discriminator, "generator": self.of_generator}
        self.losses: dict[str, Callable[..., Tensor]] = {name: way.function(loss) for name, loss in losses.items()}

    def of_discriminator(self, x: Tensor, made: Tensor) -> Tensor:
        criterion, judge = nn.functional.binary_cross_entropy_with_logits, self.networks["discriminator"]
        real, fake = judge(x), judge(made)
        return criterion(real, torch.ones_like(real)) + criterion(fake, torch.zeros_like(fake))

    def of_generator(self, z: Tensor) -> Tensor:
        scores = self.networks["discriminator"](self.networks["generator"](z))
        return nn.functional.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))

    def both(self) -> None:
        self.optimizers["discriminator"].zero_grad(set_to_none=True)
        with torch.no_grad():
            made = self.networks["generator"](torch.randn(self.batch, self.latent_size))
        self.losses["discriminator"](self.x, made).backward()
        self.optimizers["discriminator"].step()
        self.optimizers["generator"].zero_grad(set_to_none=True)
        self.networks["discriminator"].requires_grad_(False)
        self.losses["generator"](torch.randn(self.batch, self.latent_size)).backward()
        self.networks["discriminator"].requires_grad_(True)
        self.optimizers["generator"].step()
        current = [parameter.detach() for parameter in self.networks["generator"].parameters()]
        torch._foreach_lerp_(self.average, current, 0.01)


def modules(entries: Sequence[Any], shape: Sequence[int]) -> nn.Sequential:
    """torch's modules for a config's layers, of the kinds that these networks have."""
    made: list[nn.Module] = []
    kinds: dict[str, Any] = {
        "conv2d": lambda inputs, out_channels, **more: nn.Conv2d(inputs, out_channels, **more),
        "conv_transpose2d": lambda inputs, out_channels, **more: nn.ConvTranspose2d(inputs, out_channels, **more),
        "linear": lambda inputs, out_features, **more: nn.Linear(inputs, out_features, **more),
        "leaky_relu": lambda inputs, negative_slope: nn.LeakyReLU(negative_slope),
        "dropout2d": lambda inputs, p: nn.Dropout2d(p),
        "batch_norm": lambda inputs: (nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d)(inputs),
        "reshape": lambda inputs, shape: nn.Unflatten(1, shape),
        "relu": lambda inputs: nn.ReLU(),
        "tanh": lambda inputs: nn.Tanh(),
        "flatten": lambda inputs: nn.Flatten(),
    }
    for entry in entries:
        kind, arguments = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        made.append(kinds[kind](shape[0], **arguments))
        with torch.no_grad():
            shape = made[-1].eval()(torch.zeros(2, *shape)).shape[1:]
        made[-1].train()
    return nn.Sequential(*made)


def measure(batches: Sequence[int], chosen: Sequence[str], threads: int, rounds: int, seconds: float) -> list[Row]:
    """A row for each batch size, on one number of threads, in this process."""
    rows = []
    for batch in tqdm(batches, desc=f"threads {threads}", disable=None, leave=False):
        steps = {side: Torch(batch, TORCH[side]).both if side in TORCH else our_steps(batch) for side in chosen}
        row = compare(take_turns(steps, rounds, seconds, threads), batch)
        contiguous = {f"{side}, contiguous": row[side] for side in ("eager", "compile") if side in row}
        rows.append({"batch": batch, "threads": threads, **row, **contiguous})
    return rows


def main() -> None:
    options = parser(
        "gan_step", __doc__, batches=[64, 128], threads=one_and_all(), rounds=5, seconds=0.4, compile=True
    ).parse_args()
    report(by_threads(measure, options.batches, sides(options.compile), options), COLUMNS, options.json)


if __name__ == "__main__":
    main()

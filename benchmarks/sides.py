"""The sides that are compared: our training step, and torch.nn's in the four ways in which people run it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from benchmarks import timing
from benchmarks.peers import CLASSES, MODELS
from benchmarks.timing import alone
from cnn import Mode, Sequential, build_model
from cnn.losses import CrossEntropy
from cnn.optimizers import Adam
from cnn.schedules import Constant, RunLength
from runners.config import composition, folders
from runners.data.batches import Batch
from runners.tasks.classification import Classification
from runners.tasks.task import Step
from runners.training.capturing import Steps

LR = 0.01


@dataclass(frozen=True)
class Case:
    """What is measured: a shipped model, optionally of another width, on a batch of square images."""

    model: str
    batch: int
    width: int | None = None
    size: int = 28

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return 1, self.size, self.size

    def network(self) -> Sequential:
        composition.register_resolvers()
        config = OmegaConf.create({"model": OmegaConf.load(folders.CONFIGS / "model" / f"{self.model}.yaml")})
        if self.width is not None:
            config.model.width = self.width
        plain: Any = OmegaConf.to_container(config, resolve=True)
        return build_model(plain["model"], self.input_shape)

    def peer(self) -> nn.Module:
        chosen = {} if self.width is None else {"width": self.width}
        return MODELS[self.model](**chosen, size=self.size)

    def draw(self) -> Batch:
        """A random batch, the same on every call."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(*self.input_shape, self.batch, generator=generator)
        return Batch(x, torch.randint(0, CLASSES, (self.batch,), generator=generator))


@dataclass(frozen=True)
class Way:
    """A way to run torch.nn: eager or with torch.compile, in one of its memory formats."""

    compiled: bool = False
    channels_last: bool = False

    @property
    def format(self) -> Any:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def images(self, x: Tensor) -> Tensor:
        """Our images [C, H, W, N] as torch.nn's [N, C, H, W].

        They are copied into a tensor that was made in this format: one of a single channel counts as being in both,
        `contiguous` leaves its strides as they are, and torch runs the convolutions in the format of the strides.
        """
        first = x.movedim(-1, 0)
        return torch.empty(first.shape, memory_format=self.format).copy_(first)

    def network(self, network: nn.Module) -> nn.Module:
        return network.to(memory_format=self.format)  # type: ignore[call-overload, no-any-return]

    def function(self, function: Any) -> Any:
        """What to call: the function, or compiled for exactly the shapes that it is called with first.

        Call this for all that is measured together before any of it runs: the reset, without which torch would compile
        for dynamic shapes after other shapes of the same code, drops what was compiled before.
        """
        if not self.compiled:
            return function
        torch.compiler.reset()
        return torch.compile(function, dynamic=False)


TORCH = {
    "eager": Way(),
    "eager, channels last": Way(channels_last=True),
    "compile": Way(compiled=True),
    "compile, channels last": Way(compiled=True, channels_last=True),
}
CONTIGUOUS = ("ours", "eager", "compile")


def our_step(case: Case) -> timing.Step:
    """The step that run.py takes."""
    task, batch = Classification(), case.draw()
    task.build({"model": case.network()}, CrossEntropy())
    task.train_with({"model": (Adam(LR), Constant())})
    only = Step(0, RunLength(1, 1), Mode(train=True))
    steps = Steps(task)
    return lambda: steps.take([batch], only)


def torch_step(case: Case, way: Way) -> timing.Step:
    """The same step of torch.nn, with its fused Adam; forward and backward pass are compiled if anything is."""
    network, criterion, batch = way.network(case.peer()), nn.CrossEntropyLoss(), case.draw()
    optimizer = torch.optim.Adam(network.parameters(), LR, fused=True)
    images, labels = way.images(batch.x), batch.targets

    def loss(images: Tensor) -> Tensor:
        value: Tensor = criterion(network(images), labels)
        return value

    run = way.function(loss)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        run(images).backward()
        optimizer.step()

    return step


def make_step(side: str, case: Case) -> timing.Step:
    """The training step of a side, by its name."""
    return torch_step(case, TORCH[side]) if side in TORCH else our_step(case)


def sides(compiled: bool, every: Sequence[str] = ("ours", *TORCH)) -> list[str]:
    """The names of the sides that can be measured here; prints a line if torch.compile can't."""
    problem = alone(compile_problem) if compiled else ""
    if problem:
        print(f"torch.compile doesn't work here and is left out: {problem}", file=sys.stderr)
    return [side for side in every if not TORCH.get(side, Way()).compiled or (compiled and not problem)]


def compile_problem() -> str:
    """Why torch.compile doesn't work, in one line; empty if it does."""
    logging.disable()  # it would log many lines
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8))
    except Exception as error:  # a missing compiler, an unknown Python: whatever it is, the other sides are measured
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def step_flops(network: Sequential) -> int:
    """Floating-point operations for each image of a training step.

    The backward pass takes as many for the gradients of the parameters and as many again for those of the inputs,
    except for the first layer's input gradient, which isn't computed.
    """
    first = next(iter(network.layers.values()))
    return 3 * network.flops(network.input_shape) - first.flops(network.input_shape)

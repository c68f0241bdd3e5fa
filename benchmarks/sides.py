"""The sides that are compared: our training step, torch.nn's, and that with torch.compile."""

from __future__ import annotations

import logging
import sys
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


def batch_first(batch: Batch) -> Tensor:
    """The images in torch.nn's layout, [N, C, H, W] and contiguous."""
    return batch.x.movedim(-1, 0).contiguous()


def our_step(case: Case) -> timing.Step:
    """The step that run.py takes."""
    task, batch = Classification(), case.draw()
    task.build({"model": case.network()}, CrossEntropy())
    task.train_with({"model": (Adam(LR), Constant())})
    only = Step(0, RunLength(1, 1), Mode(train=True))
    steps = Steps(task)
    return lambda: steps([batch], only)


def eager_step(case: Case, *, compiled: bool = False) -> timing.Step:
    """The same step of torch.nn, with its fused Adam."""
    network, criterion, batch = case.peer(), nn.CrossEntropyLoss(), case.draw()
    optimizer = torch.optim.Adam(network.parameters(), LR, fused=True)
    images, labels = batch_first(batch), batch.targets

    def loss(images: Tensor) -> Tensor:
        value: Tensor = criterion(network(images), labels)
        return value

    run = compile_anew(loss) if compiled else loss

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        run(images).backward()
        optimizer.step()

    return step


def compiled_step(case: Case) -> timing.Step:
    """The eager step, with forward and backward pass compiled by torch.compile."""
    return eager_step(case, compiled=True)


def compile_anew(function: Any) -> Any:
    """torch.compile for exactly these shapes: after other shapes of the same code it would compile for dynamic ones."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


STEPS = {"ours": our_step, "eager": eager_step, "compile": compiled_step}


def sides(compiled: bool) -> list[str]:
    """The names of the sides that can be measured here; prints a line if torch.compile can't."""
    problem = alone(compile_problem) if compiled else ""
    if problem:
        print(f"torch.compile doesn't work here and is left out: {problem}", file=sys.stderr)
    return [side for side in STEPS if side != "compile" or (compiled and not problem)]


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

"""Generative tasks made by hand, on random pictures."""

from __future__ import annotations

from typing import Any

import torch

from cnn import Mode, build_model
from cnn.losses import LOSSES
from cnn.optimizers import SGD, Adam, Optimizer
from cnn.schedules import Constant, RunLength
from runners.data.batches import Batch
from runners.data.dataset import Description
from runners.tasks.gan import GAN
from runners.tasks.task import Step, Task
from runners.tasks.vae import VAE

SHAPE, CLASSES, LATENT = (1, 6, 6), 3, 5
DATA = Description(SHAPE, CLASSES)
LEAKY: Any = {"leaky_relu": {"negative_slope": 0.2}}
LAYERS: dict[str, list[Any]] = {
    "generator": [
        {"linear": {"out_features": 4 * 9, "bias": False}},
        {"reshape": {"shape": [4, 3, 3]}},
        "batch_norm",
        "relu",
        {"conv_transpose2d": {"out_channels": 1, "kernel_size": 4, "stride": 2, "padding": 1}},
        "tanh",
    ],
    "discriminator": [
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
        LEAKY,
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "stride": 2, "bias": False}},
        "batch_norm",
        LEAKY,
        "flatten",
        {"linear": {"out_features": 1}},
    ],
    "encoder": ["flatten", {"linear": {"out_features": 12}}, "tanh", {"linear": {"out_features": 2 * LATENT}}],
    "decoder": [
        {"linear": {"out_features": 12}},
        "tanh",
        {"linear": {"out_features": 36}},
        {"reshape": {"shape": [1, 6, 6]}},
    ],
}


def built(task: Task, loss: Any, dtype: torch.dtype = torch.float64, optimizer: Any = None) -> Task:
    """The task with its networks and an optimizer for each."""
    shapes = task.input_shapes(DATA)
    graphs = {
        name: build_model({"layers": LAYERS[name]}, shapes[name], seed=seed, dtype=dtype)
        for seed, name in enumerate(task.networks)
    }
    assert task.faults(graphs, loss, DATA) == []
    task.build(graphs, loss)

    def of_network() -> Optimizer:
        made: Optimizer = optimizer() if optimizer else Adam(lr=1e-3, betas=(0.5, 0.999))
        return made

    task.train_with({name: (of_network(), Constant()) for name in task.networks})
    return task


def gan(
    kind: str = "non_saturating", *, optimizer: Any = None, dtype: torch.dtype = torch.float64, **options: Any
) -> GAN:
    task = built(GAN(latent_size=LATENT, **options), LOSSES[kind](), dtype, optimizer)
    assert isinstance(task, GAN)
    return task


def vae(**options: Any) -> VAE:
    task = built(VAE(latent_size=LATENT, **options), LOSSES["bce_with_logits"](), torch.float64, lambda: SGD(lr=1e-2))
    assert isinstance(task, VAE)
    return task


def pictures(count: int, seed: int = 0, low: float = -1.0, dtype: torch.dtype = torch.float64) -> Batch:
    """Random pictures with values from `low` to 1, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((*SHAPE, count), generator=generator, dtype=torch.float64) * (1 - low) + low
    return Batch(x.to(dtype), torch.randint(0, CLASSES, (count,), generator=generator))


def step(index: int, seed: int | None = None) -> Step:
    """A step with noise that its index determines, or a seed."""
    generator = torch.Generator().manual_seed(index if seed is None else seed)
    return Step(index, RunLength(100, 1), Mode(train=True, generator=generator))

"""Small runs of tasks that draw pictures or give values, and checkpoints of such tasks without a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from runners.files import checkpoint
from runners.training import experiment, setup, snapshot
from runners.training.progress import Progress

Parts = dict[str, Any]
"""The sections of a config that are a task's own."""
LATENT = 4


def linear(count: int) -> dict[str, Any]:
    return {"linear": {"out_features": count}}


def drawing(*first: Any, last: tuple[Any, ...] = (), shape: tuple[int, ...] = (1, 10, 10)) -> dict[str, Any]:
    """A network that ends in pictures."""
    return {"layers": [*first, linear(math.prod(shape)), *last, {"reshape": {"shape": list(shape)}}]}


VAE: Parts = {
    "task": {"name": "vae", "latent_size": LATENT},
    "encoder": {"layers": ["flatten", linear(2 * LATENT)]},
    "decoder": drawing(linear(8), "relu"),
    "loss": {"name": "bce_with_logits"},
}
GAN: Parts = {
    "task": {"name": "gan", "latent_size": LATENT, "judge": None},
    "generator": drawing(linear(8), "relu", last=("tanh",)),
    "discriminator": {"layers": ["flatten", linear(1)]},
    "loss": {"name": "non_saturating"},
}
CONDITIONAL: Parts = {**GAN, "task": {**GAN["task"], "conditional": True}}
DENOISER: Parts = {
    "task": {"name": "regression", "target": "input", "noise": 0.1},
    "model": drawing("flatten"),
    "loss": {"name": "l2"},
}
CLASS_AS_NUMBER: Parts = {
    "task": {"name": "regression"},
    "model": {"layers": ["flatten", linear(1)]},
    "loss": {"name": "l2"},
}
KINDS = {"vae": VAE, "gan": GAN, "conditional": CONDITIONAL, "denoiser": DENOISER, "number": CLASS_AS_NUMBER}


def config(parts: Parts, data: Path, **more: Any) -> dict[str, Any]:
    """The whole config of a small task, on IDX files."""
    return {
        "data": {"name": "idx", "path": str(data), "val_examples": 30, **more.pop("source", {})},
        "augment": {},
        "optimizer": {"name": "adam", "lr": 0.01},
        "schedule": {"name": "constant"},
        **{"epochs": 2, "batch_size": 40, "seed": 0, "dtype": "float32", "device": "cpu", "kernels": "compiled"},
        "threads": 1,
        **parts,
        **more,
    }


def train(parts: Parts, data: Path, folder: Path, **more: Any) -> Path:
    """A run in this folder."""
    return experiment.run(config(parts, data, run_dir=str(folder), **more)).directory


def untrained(parts: Parts, data: Path, folder: Path, **more: Any) -> Path:
    """A folder with `best` of a task that hasn't been trained, as a run directory has it."""
    checked, dataset = setup.load(setup.prepare(config(parts, data, **more)))
    task, _ = setup.start(checked, dataset)
    (folder / "checkpoints").mkdir(parents=True)
    content = snapshot.take(checked, task, dataset, Progress.of(task))
    checkpoint.save(folder / "checkpoints" / "best.pkl", content)
    return folder

"""Run directories and sweeps without training: the files that real ones have, with numbers that are given."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from runners.files import metrics_csv
from runners.files.metrics_csv import Row
from runners.files.run_directory import RunDirectory

CONFIG: dict[str, Any] = {
    "data": {"name": "mnist", "path": None, "num_examples": 20000, "val_examples": 5000, "val_split": "train"},
    "augment": {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "elastic": 0.0, "elastic_sigma": 4.0, "flip": 0.0},
    "model": {
        "name": "seed8",
        "width": 8,
        "classes": 10,
        "layers": [
            {"conv2d": {"out_channels": 8, "kernel_size": 3}},
            "relu",
            "flatten",
            {"linear": {"out_features": 10}},
        ],
    },
    "optimizer": {"name": "adam", "lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-08, "weight_decay": 0.0},
    "loss": {"name": "cross_entropy", "weight": None, "label_smoothing": 0.0},
    "schedule": {"name": "exponential", "rate": -0.08, "min_lr": 0.0, "unit": "epochs", "warmup_steps": 0},
    "task": {"name": "classification"},
    **{"name": None, "tags": [], "epochs": 3, "batch_size": 32, "accumulate": 1, "clip_grad_norm": None},
    **{"patience": None, "seed": 0, "dtype": "float32", "device": "auto", "checkpoint": {"every_steps": None}},
    **{"kernels": "compiled", "precision": "float32", "threads": 1, "threads_fixed": False, "capture": True},
    **{"run_dir": None, "sweep_dir": None, "extensions": [], "init_from": None, "freeze": []},
}
ORIGIN = {
    **{"commit": "0123456789abcdef0123456789abcdef01234567", "branch": "main", "dirty": False, "patch_is_whole": True},
    **{"untracked": [], "host": "here", "command": "python run.py optimizer=adam"},
}
MONITOR = {"column": "val/accuracy", "better": "higher"}


def config(**changes: Any) -> dict[str, Any]:
    """A whole config with changes, whose sections are merged: `config(seed=3, optimizer={"lr": 0.1})`."""
    merged = {
        key: {**CONFIG.get(key, {}), **value} if isinstance(value, dict) else value for key, value in changes.items()
    }
    return {**CONFIG, **merged}


def rows(values: Sequence[float], column: str = "val/accuracy") -> list[Row]:
    """An epoch for each value of a column."""
    return [
        {
            "epoch": epoch,
            "step": 8 * epoch,
            "lr": 0.01,
            "train/loss": 1 / epoch,
            column: value,
            "images_per_second": 1e4,
            "seconds": 1.5,
        }
        for epoch, value in enumerate(values, start=1)
    ]


def write_run(
    path: Path,
    configured: Mapping[str, Any] | None = None,
    table: Sequence[Row] = (),
    *,
    state: str = "done",
    monitor: Mapping[str, str] = MONITOR,
    **details: Any,
) -> Path:
    """A run directory with these rows. One that is done has a summary, with the test value 0.01 below the best one."""
    column, sign = monitor["column"], -1 if monitor["better"] == "higher" else 1
    with RunDirectory.make(path, []) as directory:
        configured = CONFIG if configured is None else configured
        directory.write_yaml("config.yaml", configured)
        if table:
            metrics_csv.write(directory.metrics, list(table[0]), table)
        if state == "done":
            best = min(table, key=lambda row: sign * row[column])
            shown = {name: value for name, value in best.items() if name != "seconds"}
            test = {f"test/{column.partition('/')[2]}": best[column] - 0.01}
            seconds = sum(row["seconds"] for row in table)
            summary = {
                "monitor": dict(monitor),
                "best": shown,
                "final": dict(table[-1]),
                "test": test,
                "seconds": seconds,
            }
            directory.write_json("summary.json", summary)
        known = {"monitor": dict(monitor), "origin": ORIGIN, "device": "cpu", "versions": {"python": "3.11.7"}}
        directory.status(
            state, **{"started": "2026-01-02T03:04:05Z", "seed": configured.get("seed"), **known, **details}
        )
    return path


def write_sweep(path: Path, jobs: Mapping[int, Sequence[str]]) -> None:
    """A sweep.yaml with these jobs."""
    path.mkdir(parents=True, exist_ok=True)
    content = {
        "version": 1,
        "command": "python run.py -m seed=0,1",
        "arguments": ["seed=0,1"],
        "started": "2026-01-02T03:04:05Z",
    }
    content |= {
        "origin": ORIGIN,
        "versions": {"python": "3.11.7"},
        "jobs": {key: list(job) for key, job in jobs.items()},
    }
    (path / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def plausible_rows(epochs: int, rate: float, generator: random.Random) -> list[Row]:
    """Epochs that look like training: a loss that falls, an accuracy that rises, noise, and the time each took."""
    best = 0.985 - 0.02 * abs(math.log10(rate / 0.01)) + generator.gauss(0, 0.002)
    table = []
    for epoch in range(1, epochs + 1):
        left = math.exp(-epoch / 6) + generator.random() * 0.02
        losses = {"train/loss": 0.02 + left, "val/loss": 0.06 + left + generator.random() * 0.01}
        accuracies = {"train/accuracy": min(1, best + 0.01 - left / 4), "val/accuracy": best - left / 5}
        times = {"images_per_second": 38000 * generator.uniform(0.9, 1.1), "seconds": generator.uniform(0.5, 0.7)}
        table.append(
            {"epoch": epoch, "step": 625 * epoch, "lr": rate * math.exp(-0.08 * epoch), **losses, **accuracies, **times}
        )
    return table


def write_many(folder: Path, rates: Sequence[float], seeds: int, epochs: int) -> None:
    """A run for each of four optimizers, these rates, and this many seeds."""
    generator = random.Random(0)
    for name in ("adam", "adamw", "rmsprop", "sgd"):
        for rate in rates:
            for seed in range(seeds):
                number = len(list(folder.iterdir())) if folder.exists() else 0
                changed = config(seed=seed, epochs=epochs, optimizer={"name": name, "lr": rate})
                write_run(folder / str(number), changed, plausible_rows(epochs, rate, generator))

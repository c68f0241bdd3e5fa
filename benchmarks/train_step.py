"""A whole training step (forward, loss, backward, Adam) beside torch.nn's, in turn, in one process.

    python -m benchmarks.train_step [--models seed8,blocks,lenet] [--batches 32] [--threads 1,2] [--rounds 9] [--json]

Each round times both for a while, one after the other; printed are the medians of images per second, and the median of
the rounds' ratios. Above 1 ours is the faster one. Each number of threads is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from benchmarks.peers import PEERS
from cnn import build_model, ops
from cnn.losses import CrossEntropy
from cnn.ops.threads import available_threads
from cnn.optimizers import Adam
from runners.data.batches import Batch
from runners.tasks import Classification
from runners.tasks.classification import Totals

CONFIGS = Path(__file__).parents[1] / "configs" / "model"
LR = 0.01
SECONDS = 0.4
"""How long one side of a round is timed."""

Step = Callable[[], None]


def our_step(model: str, batch: Batch) -> Step:
    """The step that run.py takes."""
    config = OmegaConf.create({"model": OmegaConf.load(CONFIGS / f"{model}.yaml")})
    plain: Any = OmegaConf.to_container(config, resolve=True)
    network = build_model(plain["model"], (1, 28, 28))
    task, optimizer = Classification(network, CrossEntropy()), Adam(LR)
    return lambda: task.train_step([batch], optimizer, LR, Totals())


def torch_step(model: str, batch: Batch) -> Step:
    """The same step of torch.nn, with its fused Adam."""
    network = PEERS[model]()
    optimizer = torch.optim.Adam(network.parameters(), LR, fused=True)
    images, loss = batch.x.movedim(-1, 0).contiguous(), nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(images), batch.labels).backward()
        optimizer.step()

    return step


def seconds_a_step(step: Step) -> float:
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        step()
        count += 1
    return (time.perf_counter() - start) / count


def measure(model: str, size: int, rounds: int) -> dict[str, float]:
    """Images per second of both sides, and the ratio ours / torch."""
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(1, 28, 28, size, generator=generator), torch.randint(0, 10, (size,), generator=generator))
    steps = our_step(model, batch), torch_step(model, batch)
    for step in steps:
        for _ in range(5):
            step()
    pairs = [[seconds_a_step(step) for step in steps] for _ in range(rounds)]
    ours, theirs = (size / statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    return {"ours": ours, "torch": theirs, "ratio": statistics.median(pair[1] / pair[0] for pair in pairs)}


def here(models: Sequence[str], sizes: Sequence[int], threads: int, rounds: int) -> list[dict[str, Any]]:
    """All measurements on one number of threads, in this process."""
    ops.set_threads(threads)
    return [
        {"model": model, "batch": size, "threads": threads, **measure(model, size, rounds)}
        for model in models
        for size in sizes
    ]


def in_words(results: Sequence[dict[str, Any]]) -> str:
    lines = ["model   batch  threads  ours images/s  torch.nn images/s  ratio"]
    for row in results:
        lines.append(
            f"{row['model']:<7} {row['batch']:>5}  {row['threads']:>7}  {row['ours']:>13,.0f}  {row['torch']:>17,.0f}"
            f"  {row['ratio']:>5.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__.splitlines()[0])
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(PEERS))
    parser.add_argument("--batches", type=numbers, default=[32])
    parser.add_argument("--threads", type=numbers, default=list(range(1, available_threads() + 1)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    if len(options.threads) == 1:
        results = here(options.models, options.batches, options.threads[0], options.rounds)
    else:
        results = []
        for threads in options.threads:
            command = [
                sys.executable,
                "-m",
                "benchmarks.train_step",
                *sys.argv[1:],
                "--threads",
                str(threads),
                "--json",
            ]
            results += json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(json.dumps(results, indent=2) if options.json else in_words(results))


if __name__ == "__main__":
    main()

"""The default experiment as most people write it with torch.nn: `python -m benchmarks.torch_loop [--epochs 10] ...`.

The work of `python run.py`: seed8, Adam with a learning rate that decays, batches of 32, validation after each epoch,
the test at the end. Images are normalised once and kept in memory as NCHW tensors; batches are picked by shuffled
indices. Imports only the peer from this project. Prints the test accuracy.
"""

from __future__ import annotations

import argparse
import gzip
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers import seed8
from benchmarks.timing import count

MNIST = Path(__file__).parents[1] / "runners" / "data" / "mnist"
VAL_EXAMPLES, EVALUATION_BATCH = 5000, 256
LR, RATE = 0.01, -0.08


def read(prefix: str) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 28, 28] in [0, 1] and labels [N]."""

    def content(kind: str, header: int) -> Tensor:
        data = gzip.decompress((MNIST / f"{prefix}-{kind}-ubyte.gz").read_bytes())
        return torch.from_numpy(np.frombuffer(data, np.uint8, offset=header).copy())

    return content("images-idx3", 16).view(-1, 1, 28, 28).float() / 255, content("labels-idx1", 8).long()


def train_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, batch_size: int
) -> None:
    network.train()
    criterion = nn.CrossEntropyLoss()
    for indices in torch.randperm(len(images)).split(batch_size):
        optimizer.zero_grad()
        criterion(network(images[indices]), labels[indices]).backward()
        optimizer.step()


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    network.eval()
    with torch.inference_mode():
        batches = zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True)
        correct = sum(int((network(x).argmax(1) == y).sum()) for x, y in batches)
    return correct / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_loop")
    parser.add_argument("--examples", type=count, default=20000)
    parser.add_argument("--epochs", type=count, default=10)
    parser.add_argument("--batch", type=count, default=32)
    parser.add_argument("--threads", type=count, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    (images, labels), (test_images, test_labels) = read("train"), read("t10k")
    val, train = torch.randperm(len(images))[: VAL_EXAMPLES + options.examples].tensor_split([VAL_EXAMPLES])
    mean, std = images[train].mean(), images[train].std()
    images, test_images = (images - mean) / std, (test_images - mean) / std
    network = seed8()
    optimizer = torch.optim.Adam(network.parameters(), LR, fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, math.exp(RATE))
    train_images, train_labels = images[train], labels[train]
    val_images, val_labels = images[val], labels[val]
    for _ in range(options.epochs):
        train_epoch(network, optimizer, train_images, train_labels, options.batch)
        accuracy(network, val_images, val_labels)
        schedule.step()
    print(accuracy(network, test_images, test_labels))


if __name__ == "__main__":
    main()

"""Train a network on MNIST with `cnn` alone: no config, no run directory, the training loop in plain sight.

    python examples/train_mnist.py [--epochs 3] [--examples 20000]

Shows the five calls of a training step: forward, loss, loss backward, backward, optimizer. Prints the accuracy on the
10,000 test digits after each epoch.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from cnn import Mode, Sequential, build_model
from cnn.losses import CrossEntropy
from cnn.optimizers import Adam
from runners.data import Examples
from runners.data.sources.idx import Mnist

BLOCK = [{"conv2d": {"out_channels": 10, "kernel_size": 3}}, "batch_norm", {"max_pool2d": {"kernel_size": 2}}, "relu"]
MODEL = {"layers": [*BLOCK, *BLOCK, "flatten", {"linear": {"out_features": 10}}]}


def inputs(examples: Examples, indices: Tensor) -> Tensor:
    """Bytes [N, C, H, W] become the layout of every layer, [C, H, W, N], with about zero mean and unit variance."""
    pixels = examples.images[indices].movedim(0, -1).float()
    return ((pixels / 255 - 0.13) / 0.31).contiguous()


def train(epochs: int, count: int) -> Sequential:
    """A network trained on the first `count` training digits."""
    torch.manual_seed(0)
    training, test = Mnist().read()
    net = build_model(MODEL, input_shape=(1, 28, 28))
    loss, optimizer = CrossEntropy(), Adam()
    for epoch in range(1, epochs + 1):
        order = torch.randperm(min(count, len(training)))
        for start in range(0, len(order), 32):
            indices = order[start : start + 32]
            y, cache = net.forward(inputs(training, indices), Mode(train=True))
            _, loss_cache = loss.forward(y, training.targets[indices])
            net.flat.grad.zero_()
            net.backward(loss.backward(loss_cache), cache, need_dx=False)  # adds to net.flat.grad
            optimizer.step(net.flat, lr=0.005)
        print(f"epoch {epoch}  test accuracy {accuracy(net, test):.2%}", flush=True)
    return net


def accuracy(net: Sequential, examples: Examples) -> float:
    """The share of the examples whose largest output is that of the right class."""
    right = 0
    for start in range(0, len(examples), 1000):
        indices = torch.arange(start, min(start + 1000, len(examples)))
        y, _ = net.forward(inputs(examples, indices), Mode(train=False, keep_cache=False))
        right += int((y.argmax(0) == examples.targets[indices]).sum())
    return right / len(examples)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a network on MNIST with cnn alone.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--examples", type=int, default=20000)
    options = parser.parse_args()
    train(options.epochs, options.examples)

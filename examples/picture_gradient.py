"""Draw the gradient of a picture: how each pixel would have to change to raise the score of the right digit.

    python examples/picture_gradient.py [--examples 10000] [--out outputs/picture_gradient.png]

Shows that `backward` goes all the way to the input, and that it can leave the parameters' gradients alone. A small
network is trained first (see train_mnist.py). Red pixels raise the digit's logit when they get lighter, blue ones
lower it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from train_mnist import inputs, train

from cnn import Mode, Sequential
from runners.data.sources.idx import Mnist


def gradient(net: Sequential, x: Tensor, targets: Tensor) -> Tensor:
    """d logit / d pixel, [C, H, W, N], for the logit of each example's class.

    In evaluation mode batch norm's statistics are constants, so the examples of a batch don't affect one another.
    """
    y, cache = net.forward(x, Mode(train=False))
    dy = torch.zeros_like(y)
    dy[targets, torch.arange(len(targets))] = 1.0  # the gradient of the sum of these logits
    dx = net.backward(dy, cache, need_dparams=False)
    assert dx is not None
    return dx


def draw(x: Tensor, dx: Tensor, targets: Tensor) -> Figure:
    """Each picture above its gradient."""
    figure = Figure(figsize=(1.2 * len(targets), 2.6), layout="constrained")
    above, below = figure.subplots(2, len(targets))
    for n, target in enumerate(targets.tolist()):
        above[n].imshow(x[0, ..., n], cmap="gray")
        above[n].set_title(str(target))
        limit = float(dx[0, ..., n].abs().max())
        below[n].imshow(dx[0, ..., n], cmap="bwr", vmin=-limit, vmax=limit)
    for axes in (*above, *below):
        axes.set_axis_off()
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the gradients of digits.")
    parser.add_argument("--examples", type=int, default=10000, help="training digits (default 10000)")
    parser.add_argument("--out", type=Path, default=Path("outputs/picture_gradient.png"), help="where the picture goes")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    network = train(epochs=1, count=options.examples)
    _, test = Mnist().read()
    first = torch.arange(8)
    pictures = inputs(test, first)
    draw(pictures, gradient(network, pictures, test.targets[first]), test.targets[first]).savefig(options.out)
    print(f"saved {options.out}")

"""The shipped models as `torch.nn` modules, to be measured against.

Each takes the `width` of its config and the height and width of square images, `size`; the defaults are the config's.
Layers are in the config's order, so that weights can be copied from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 10


def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), nn.ReLU()]


def flattened(*layers: nn.Module, size: int) -> tuple[nn.Sequential, int]:
    """The layers with a flatten after them, and how many features that gives for an image of this size."""
    body = nn.Sequential(*layers, nn.Flatten())
    with torch.no_grad():
        features = body.eval()(torch.zeros(1, 1, size, size)).shape[1]
    return body.train(), features


def seed8(width: int = 10, size: int = 28) -> nn.Module:
    body, features = flattened(
        *convolution(1, width),
        *convolution(width, width, 2),
        nn.MaxPool2d(3, 1),
        *convolution(width, width),
        *convolution(width, width),
        *convolution(width, width, 2),
        size=size,
    )
    return nn.Sequential(*body, nn.Linear(features, CLASSES))


def blocks(width: int = 10, size: int = 28) -> nn.Module:
    def block(inputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.MaxPool2d(2), nn.ReLU()]

    body, features = flattened(*block(1), *block(width), size=size)
    return nn.Sequential(*body, nn.Linear(features, CLASSES))


def lenet(width: int = 32, size: int = 28) -> nn.Module:
    body, features = flattened(*convolution(1, width), *convolution(width, 64), nn.MaxPool2d(2), size=size)
    return nn.Sequential(*body, nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, CLASSES))


class Residual(nn.Module):
    """Two 3x3 convolutions, plus the identity or, if the shape changes, a 1x1 convolution; then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet13(width: int = 16, size: int = 28) -> nn.Module:
    """Takes images of any size: a global pool comes before its linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Residual(width, width),
        Residual(width, width),
        Residual(width, 2 * width, 2),
        Residual(2 * width, 2 * width),
        Residual(2 * width, 4 * width, 2),
        Residual(4 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    )


PEERS: dict[str, Callable[..., nn.Module]] = {"seed8": seed8, "blocks": blocks, "lenet": lenet}
"""The ones whose training the tests follow closely; in single precision resnet13's drifts apart sooner."""

MODELS: dict[str, Callable[..., nn.Module]] = {**PEERS, "resnet13": resnet13}

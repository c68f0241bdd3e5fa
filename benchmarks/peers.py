"""The shipped models as `torch.nn` modules: what we are measured against."""

from __future__ import annotations

from torch import nn


def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), nn.ReLU()]


def seed8() -> nn.Module:
    return nn.Sequential(
        *convolution(1, 10),
        *convolution(10, 10, 2),
        nn.MaxPool2d(3, 1),
        *convolution(10, 10),
        *convolution(10, 10),
        *convolution(10, 10, 2),
        nn.Flatten(),
        nn.Linear(40, 10),
    )


def lenet() -> nn.Module:
    return nn.Sequential(
        *convolution(1, 32),
        *convolution(32, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def blocks() -> nn.Module:
    def block(inputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, 10, 3, padding=1), nn.BatchNorm2d(10), nn.MaxPool2d(2), nn.ReLU()]

    return nn.Sequential(*block(1), *block(10), nn.Flatten(), nn.Linear(490, 10))


PEERS = {"seed8": seed8, "blocks": blocks, "lenet": lenet}

"""Every shipped model as a whole: gradients against autograd, shapes on the sizes it is meant for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cnn import Mode, build_model
from tests.cnn.case import normal
from tests.cnn.oracle import compare, randomised, sequence
from tests.cnn.test_trajectory import ROOT, shipped

MODELS = sorted(file.stem for file in Path(ROOT / "configs" / "model").glob("*.yaml"))
IMAGES = [name for name in MODELS if name not in ("conv3d", "autoencoder", "denoiser")]
"""Those that classify images."""
PICTURES = ["autoencoder", "denoiser"]
"""Those that make images of images."""
CLIP = (1, 8, 20, 20)


def layers_of(name: str) -> Any:
    """A shipped model without noise, which torch would draw differently."""
    return [entry for entry in shipped(name)["layers"] if "dropout" not in entry]  # type: ignore[attr-defined]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_against_autograd(name: str, train: bool, kernel_set: str) -> None:
    layers, shape = layers_of(name), CLIP if name == "conv3d" else (1, 28, 28)
    network = randomised(build_model({"layers": layers}, shape))
    errors = compare(network, sequence(layers, shape), normal((*shape, 3), 1), Mode(train), as_one=True)
    assert max(errors.values()) <= 1e-9, errors


@pytest.mark.parametrize("name", [*IMAGES, *PICTURES])
def test_gradients_in_single_precision(name: str, kernel_set: str) -> None:
    """Looser than for one layer: rounding errors of many layers add up, and ReLUs near 0 fall either way."""
    layers, shape = layers_of(name), (1, 28, 28)
    network = build_model({"layers": layers}, shape, seed=2)
    errors = compare(network, sequence(layers, shape), normal((*shape, 3), 1).float(), Mode(train=True), as_one=True)
    assert max(errors.values()) <= 1e-2, errors


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", IMAGES)
def test_images_of_both_sizes(name: str, channels: int, size: int) -> None:
    network = build_model(shipped(name), (channels, size, size))
    y, _ = network.forward(torch.zeros(channels, size, size, 2), Mode(train=False, keep_cache=False))
    assert y.shape == (10, 2)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_keep_their_size(name: str) -> None:
    assert build_model(shipped(name), (1, 28, 28)).output_shape((1, 28, 28)) == (1, 28, 28)

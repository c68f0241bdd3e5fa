"""A trained classifier that judges generated pictures: its features and its classes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from cnn import Sequential
from cnn.graphs.fusion import fuse
from cnn.layers.linear import Linear
from runners.errors import CheckpointError
from runners.files import checkpoint
from runners.files.content import Checkpoint
from runners.tasks.task import EVALUATION

BATCH = 256


@dataclass(frozen=True)
class Judge:
    """A classifier in two parts: up to its last linear layer, whose input are the features, and from there on.

    Pixels are given in [0, 1]; `mean` and `std` are what the classifier normalises them with. `digest`: the SHA-256 of
    its weights, with which every figure that it gave is quoted.
    """

    body: Sequential
    head: Sequential
    input_shape: tuple[int, ...]
    class_names: list[str]
    mean: float
    std: float
    digest: str

    @classmethod
    def of(cls, content: Checkpoint) -> Judge:
        """The classifier of a checkpoint. Raises CheckpointError if it can't judge."""
        graphs = checkpoint.rebuild(content)
        layers = dict(graphs["model"].layers) if "model" in graphs else {}
        linear = [name for name, layer in layers.items() if isinstance(layer, Linear)]
        if not linear or content.task.get("name") != "classification":
            raise CheckpointError(
                f"{content.place}: can't judge pictures: not a classifier whose layers end in a linear one"
            )
        names = list(layers)
        cut = names.index(linear[-1])
        state = content.networks["model"].weights
        digest = hashlib.sha256()
        for name in sorted(state):
            digest.update(name.encode())
            digest.update(state[name].data)
        return cls(
            fuse(Sequential({name: layers[name] for name in names[:cut]})),
            Sequential({name: layers[name] for name in names[cut:]}),
            tuple(content.data.input_shape),
            content.data.class_names,
            content.data.mean,
            content.data.std,
            digest.hexdigest(),
        )

    def features(self, pictures: Tensor) -> Tensor:
        """The features [F, N] of pictures [C, *S, N] with values in [0, 1]."""
        dtype = next(parameter.data.dtype for _, parameter in self.head.named_parameters())
        x = (pictures.to("cpu", dtype) - self.mean) / self.std
        starts = range(0, x.shape[-1], BATCH)
        parts = [self.body.forward(x[..., n : n + BATCH].contiguous(), EVALUATION)[0] for n in starts]
        return torch.cat(parts, -1)

    def classify(self, features: Tensor) -> Tensor:
        """The class [N] that each picture with these features is recognised as."""
        scores, _ = self.head.forward(features, EVALUATION)
        return scores.argmax(0)


def blurred(pictures: Tensor, sigma: float = 1.0) -> Tensor:
    """Pictures [C, *S, N], blurred with a Gaussian of `sigma` pixels; beyond their border they are 0.

    A yardstick: a Frechet distance above that of blurred data is a poor one.
    """
    reach = int(3 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=pictures.dtype)
    taps = torch.exp(-offsets.square() / (2 * sigma**2))
    taps /= taps.sum()
    for axis in range(1, pictures.dim() - 1):
        extent = pictures.shape[axis]
        distance = (torch.arange(extent)[:, None] - torch.arange(extent)).abs()
        matrix = torch.where(distance <= reach, taps[(distance + reach).clamp(max=2 * reach)], 0.0)
        pictures = (pictures.movedim(axis, -1) @ matrix.to(pictures.device)).movedim(-1, axis)
    return pictures

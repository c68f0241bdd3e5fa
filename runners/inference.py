"""Prediction: a network rebuilt from its checkpoint alone names what is on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cnn import Sequential
from runners import checkpoint
from runners.checkpoint import Checkpoint
from runners.errors import CheckpointError, ImageError
from runners.images import FORMATS, Prepared, prepare_digit, prepare_plain, read_picture
from runners.tasks.classification import probabilities


@dataclass(frozen=True)
class Prediction:
    """The classes of one picture with their probabilities, the likeliest first."""

    path: Path
    ranking: list[tuple[str, float]]
    done: dict[str, Any]

    @property
    def heading(self) -> str:
        label = self.ranking[0][0]
        return f"Predicted Number: {label}" if label.isdecimal() else f"Predicted: {label}"

    def in_words(self, top: int) -> str:
        """Several lines for one picture."""
        lines = [f"  {label}  {probability:.2%}" for label, probability in self.ranking[:top]]
        return "\n".join([self.heading, *lines])

    def in_a_line(self) -> str:
        """One line for one picture of many."""
        return f"{self.path}: {self.heading} ({self.ranking[0][1]:.2%})"

    def as_json(self, top: int) -> dict[str, Any]:
        label, probability = self.ranking[0]
        return {
            "path": str(self.path),
            "label": label,
            "probability": probability,
            "top": [list(pair) for pair in self.ranking[:top]],
            **self.done,
        }


class Predictor:
    """A network, the preparation of its pictures and the names of its classes, all from one checkpoint."""

    def __init__(self, network: Sequential, content: Checkpoint) -> None:
        self.network = network
        self.content = content
        self.input_shape = tuple(content.input_shape)

    @classmethod
    def load(cls, run: str, which: str = "best") -> Predictor:
        """From a run directory or a checkpoint file. Raises CheckpointError."""
        content = checkpoint.load_run(run, which)
        predictor = cls(checkpoint.rebuild(content), content)
        if len(predictor.input_shape) != 3:
            shape = list(predictor.input_shape)
            problem = f"its network takes {shape}, pictures are [channels, height, width]"
            raise CheckpointError(f"{run}: {problem}; python -m runners.evaluate {run} tests it on its own data")
        return predictor

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture as the network was trained to see it."""
        prepare = prepare_digit if self.content.preparation == "digit" else prepare_plain
        return prepare(picture, self.input_shape)

    def predict(self, path: Path) -> Prediction:
        """Name what is on a picture. Raises ImageError where it can't be read."""
        try:
            prepared = self.prepare(read_picture(path))
        except ImageError as error:
            message = str(error)
            raise ImageError(message if message.startswith(f"{path}:") else f"{path}: {message}") from None
        dtype = self.network.flat.data.dtype
        x = torch.from_numpy(prepared.pixels).to(dtype).sub(self.content.mean).div(self.content.std)[..., None]
        chances = probabilities(self.network, self.content.loss, x)[:, 0]
        names = self.content.class_names
        order = chances.argsort(descending=True).tolist()
        return Prediction(path, [(names[index], chances[index].item()) for index in order], prepared.done)


def find_pictures(given: Sequence[str]) -> list[Path]:
    """The files named, and all pictures in the folders named, sorted. Raises ImageError for a folder without any."""
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}
    paths: list[Path] = []
    for name in given:
        path = Path(name)
        if not path.is_dir():
            paths.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in known and file.is_file())
        if not inside:
            raise ImageError(f"{path}: a folder without pictures")
        paths += inside
    return paths

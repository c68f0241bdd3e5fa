"""Prediction: classify pictures with a network that is rebuilt from its checkpoint alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from runners.errors import CheckpointError, ImageError, printable, program
from runners.files import checkpoint
from runners.files.content import Checkpoint
from runners.pictures.preparing import preparer
from runners.pictures.reading import Prepared, read_picture
from runners.tasks.registry import saved_task
from runners.tasks.task import Task


@dataclass(frozen=True)
class Prediction:
    """The classes of one picture with their probabilities, most likely first."""

    path: Path
    ranking: list[tuple[str, float]]
    done: dict[str, Any]

    @property
    def heading(self) -> str:
        label = printable(self.ranking[0][0])
        return f"Predicted Number: {label}" if label.isdecimal() else f"Predicted: {label}"

    def as_text(self, top: int) -> str:
        """Several lines, for a single picture."""
        lines = [f"  {printable(label)}  {probability:.2%}" for label, probability in self.ranking[:top]]
        return "\n".join([self.heading, *lines, *self._preparation_note()])

    def as_line(self) -> str:
        """One line, for one of many pictures."""
        return f"{printable(self.path)}: {self.heading} ({self.ranking[0][1]:.2%})"

    def _preparation_note(self) -> list[str]:
        """A line on how the picture was prepared, if anything was changed."""
        left, top, right, bottom = self.done["cropped"]
        cropped = [right - left, bottom - top] != self.done["size"]
        notes = {
            "first of several frames": self.done["more_frames"],
            "turned upright": self.done["orientation"] != 1,
            f"on a {self.done['background']} background": self.done["background"],
            "inverted": self.done["inverted"],
            f"cropped to {right - left}x{bottom - top} at {left},{top}": cropped,
            f"{self.done.get('pieces')} pieces joined into one digit": self.done.get("pieces", 1) > 1,
        }
        shown = ", ".join(text for text, applies in notes.items() if applies)
        return [f"  ({shown})"] if shown else []

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
    """A task, how its pictures are prepared and the names of its classes, all from one checkpoint."""

    def __init__(self, task: Task, content: Checkpoint) -> None:
        self.task = task
        self.content = content
        self.input_shape = tuple(content.data.input_shape)

    @classmethod
    def load(cls, run: str, which: str = "best") -> Predictor:
        """Load a run directory or a checkpoint file. Raises CheckpointError."""
        content = checkpoint.load_run(run, which)
        predictor = cls(saved_task(content), content)
        if not predictor.task.names_classes:
            problem = f"its task, {predictor.task.kind}, has no classes"
            raise CheckpointError(f"{run}: {problem}; {program('evaluate')} {run} tests it on its own data")
        if len(predictor.input_shape) != 3 or predictor.input_shape[0] not in (1, 3):
            shape = list(predictor.input_shape)
            problem = f"its network takes {shape}, pictures are [1 or 3 channels, height, width]"
            raise CheckpointError(f"{run}: {problem}; {program('evaluate')} {run} tests it on its own data")
        return predictor

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture in the form that the network was trained on."""
        return preparer(self.content.data.preparation)(picture, self.input_shape)

    def _probabilities(self, prepared: Prepared) -> Tensor:
        """The probability of each class [K]."""
        dtype = checkpoint.PRECISIONS[self.content.dtype]
        data = self.content.data
        x = torch.from_numpy(prepared.pixels).to(dtype).sub(data.mean).div(data.std)[..., None]
        return self.task.predict(x)[:, 0]

    def predict(self, path: Path) -> Prediction:
        """Classify a picture.

        Raises ImageError if it can't be read, CheckpointError if the network's output isn't finite.
        """
        picture = read_picture(path)
        try:
            with checkpoint.enough_memory(self.content):
                prepared = self.prepare(picture)
                probabilities = self._probabilities(prepared)
        except ImageError as error:
            raise ImageError(error.reason, path) from None
        if not probabilities.isfinite().all():
            raise CheckpointError(f"{self.content.place}: its network's output is infinite or NaN")
        names = self.content.data.class_names
        order = probabilities.argsort(descending=True).tolist()
        done = {**{str(key): value for key, value in picture.info.items()}, **prepared.done}
        return Prediction(path, [(names[index], probabilities[index].item()) for index in order], done)

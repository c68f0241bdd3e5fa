"""Prediction: what a network, rebuilt from its checkpoint alone, makes of pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnn import ops
from cnn.ops.threads import available_cores, one_thread
from runners.errors import CheckpointError, ImageError, printable, program
from runners.files import checkpoint
from runners.files.content import Checkpoint
from runners.pictures.preparing import preparer
from runners.pictures.reading import Prepared, read_picture
from runners.tasks.registry import saved_task
from runners.tasks.task import Task

Array = np.ndarray[Any, Any]

MAX_BATCH = 32
"""Pictures that are classified at once."""
MAX_VALUES = 1 << 18
"""Values of all pictures in a batch: large ones are classified one by one, in several threads."""
MAX_READERS = 4
"""Threads that read large pictures, of which each may take hundreds of megabytes."""
LARGE = 1 << 18
"""Pixels of a picture whose decoding and filtering leave other threads time; for small ones they are in each other's
way."""


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


@dataclass(frozen=True)
class Output:
    """What a task predicts for one picture, without a batch axis, and a record of how the picture was prepared."""

    path: Path
    values: Tensor
    done: dict[str, Any]


class PictureTask:
    """A task whose inputs are pictures, and how these are prepared, all from one checkpoint."""

    def __init__(self, task: Task, content: Checkpoint) -> None:
        self.task = task
        self.content = content
        self.input_shape = tuple(content.data.input_shape)
        many = batch_size(self.input_shape)
        self.batch_size = 1 if content.dtype == "float64" else many  # its matrix products depend on places in a batch

    def require_pictures(self, run: str) -> None:
        """Raise CheckpointError if the network's input isn't a picture."""
        if len(self.input_shape) != 3 or self.input_shape[0] not in (1, 3):
            problem = f"its network takes {list(self.input_shape)}, pictures are [1 or 3 channels, height, width]"
            raise CheckpointError(f"{run}: {problem}; {program('evaluate')} {run} tests it on its own data")

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture in the form that the network was trained on."""
        return preparer(self.content.data.preparation)(picture, self.input_shape)

    def outputs(self, paths: Sequence[Path]) -> Iterator[Output | ImageError]:
        """What the task predicts for each picture, or why that can't be read.

        Pictures are taken in batches, of which each has the same size, so that an answer doesn't depend on the other
        pictures. Raises CheckpointError if the network's output isn't finite.
        """
        with ThreadPoolExecutor(min(MAX_READERS, available_cores())) as pool:
            for start in range(0, len(paths), self.batch_size):
                batch = paths[start : start + self.batch_size]
                with checkpoint.enough_memory(self.content):
                    first = self._read(batch[0])
                    read = [first, *(pool.map if _is_large(first) else map)(self._read, batch[1:])]
                    prepared = [one for one in read if not isinstance(one, ImageError)]
                    values = iter(self._values([one.pixels for one in prepared]).unbind(-1) if prepared else ())
                for path, one in zip(batch, read, strict=True):
                    yield one if isinstance(one, ImageError) else self._output(path, one, next(values))

    def _read(self, path: Path) -> Prepared | ImageError:
        """A picture, read and prepared; what was done in reading it is added to the record."""
        try:
            picture = read_picture(path)
            prepared = self.prepare(picture)
        except ImageError as error:
            return ImageError(error.reason, path)
        return replace(prepared, done={**{str(key): value for key, value in picture.info.items()}, **prepared.done})

    def _output(self, path: Path, prepared: Prepared, values: Tensor) -> Output:
        require_finite(values, self.content)
        return Output(path, values, prepared.done)

    def _values(self, pixels: Sequence[Array]) -> Tensor:
        """The prediction [..., N] for at most `batch_size` pictures; empty places are computed with them.

        The reference kernels are used: to load compiled ones takes longer than a thousand small pictures.
        """
        data = self.content.data
        x = torch.zeros(*self.input_shape, self.batch_size, dtype=checkpoint.PRECISIONS[self.content.dtype])
        x[..., : len(pixels)] = torch.from_numpy(np.stack(pixels, -1))
        with ops.kernels("reference"), threads(self.batch_size):
            return self.task.predict(x.sub_(data.mean).div_(data.std))[..., : len(pixels)]


class Predictor(PictureTask):
    """A classifier of pictures, with the names of its classes."""

    @classmethod
    def load(cls, run: str, which: str = "best") -> Predictor:
        """Load a run directory or a checkpoint file. Raises CheckpointError."""
        content = checkpoint.load_run(run, which)
        predictor = cls(saved_task(content), content)
        if predictor.task.predicts != "classes":
            problem = f"its task, {predictor.task.kind}, has no classes"
            raise CheckpointError(f"{run}: {problem}; {program('evaluate')} {run} tests it on its own data")
        predictor.require_pictures(run)
        return predictor

    def predict(self, path: Path) -> Prediction:
        """Classify a picture.

        Raises ImageError if it can't be read, CheckpointError if the network's output isn't finite.
        """
        (answer,) = self.answers([path])
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def answers(self, paths: Sequence[Path]) -> Iterator[Prediction | ImageError]:
        """The prediction for each picture, as `outputs` gives it."""
        names = self.content.data.class_names
        for output in self.outputs(paths):
            if isinstance(output, ImageError):
                yield output
                continue
            order = output.values.argsort(descending=True).tolist()
            values = output.values.tolist()
            yield Prediction(output.path, [(names[index], values[index]) for index in order], output.done)


def batch_size(shape: Sequence[int]) -> int:
    """How many pictures of this shape are computed at once."""
    return max(1, min(MAX_BATCH, MAX_VALUES // math.prod(shape)))


def threads(batch: int) -> AbstractContextManager[None]:
    """One for small pictures, which are computed in batches: more would wait for each other."""
    return one_thread() if batch > 1 else nullcontext()


def require_finite(values: Tensor, content: Checkpoint) -> None:
    """Raise CheckpointError if a checkpoint's network gave these values, and they aren't finite."""
    if not values.isfinite().all():
        raise CheckpointError(f"{content.place}: its network's output is infinite or NaN")


def _is_large(read: Prepared | ImageError) -> bool:
    return not isinstance(read, ImageError) and math.prod(read.done["size"]) >= LARGE

"""Pictures of what a run's networks do: one after each epoch, the film that these make, and the final ones."""

from __future__ import annotations

import numpy as np
from PIL import Image

from runners.files.metrics_csv import Row
from runners.files.run_directory import SNAPSHOTS, RunDirectory
from runners.pictures.writing import gif, png
from runners.tasks.task import Task
from runners.training.progress import Progress
from runners.training.recorder import Listener

MAX_FRAMES = 100
FILM_MILLISECONDS = 200
"""How long each frame of a film of epochs is shown."""


class Snapshots(Listener):
    """Writes a picture after each epoch, of tasks that have one."""

    def __init__(self, task: Task, directory: RunDirectory) -> None:
        self.task = task
        self.directory = directory

    def begin(self, progress: Progress) -> None:
        """Make up for a picture that is missing because its process was killed between saving and drawing."""
        drawn = {int(file.stem) for file in self.directory.snapshots()}
        if progress.epoch and not progress.steps and progress.epoch not in drawn:
            self._draw(progress.epoch)

    def epoch(self, row: Row, progress: Progress) -> str | None:
        self._draw(progress.epoch)
        return None

    def _draw(self, epoch: int) -> None:
        picture = self.task.snapshot()
        if picture is not None:
            self.directory.write_snapshot(epoch, png(picture))


def write_pictures(task: Task, directory: RunDirectory) -> None:
    """Write the final pictures, and a film of all epochs, whichever process has drawn them."""
    for name, frames in task.pictures().items():
        if len(frames) == 1:
            directory.write_figure(name, png(frames[0]))
        else:
            directory.write_figure(name, gif(frames), ".gif")
    files = directory.snapshots()
    if len(files) > 1:
        shown = [files[index] for index in evenly(len(files), MAX_FRAMES)]
        directory.write_figure(
            SNAPSHOTS, gif([np.asarray(Image.open(file)) for file in shown], FILM_MILLISECONDS), ".gif"
        )


def evenly(count: int, most: int) -> list[int]:
    """At most this many of the indices below `count`, at even distances, with the first and the last."""
    return [round(index) for index in np.linspace(0, count - 1, min(count, most)).tolist()]

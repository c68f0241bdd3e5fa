"""Weights & Biases: offline, in `RUN/wandb`, unless a config, WANDB_MODE or a login says otherwise."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from runners.trackers.tracker import About, Tracker

FOLDER = "wandb"
BLOCK, PART = 1 << 15, struct.Struct("<IHB")
WHOLE, LAST = 1, 4
EXIT_CODES = {"done": 0, "failed": 1, "interrupted": 255}


class WandB(Tracker):
    """Steps are epochs. Online, the server knows which ones it has; offline, each start writes all of them."""

    kind = "wandb"
    package = "wandb"

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
    ) -> None:
        self.project = project or os.environ.get("WANDB_PROJECT") or "cnn-from-scratch"
        self.entity = entity
        self.mode = mode

    def start(self, run: About, rows: Sequence[Mapping[str, float]]) -> None:
        import wandb

        mode: Any = self.mode or os.environ.get("WANDB_MODE") or ("online" if _is_logged_in() else "offline")
        self.earlier = [] if mode == "online" else _unsynced(Path(run.directory, FOLDER))
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, x_stats_pid=run.pid, login_timeout=1
        )
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            id=run.identity,
            name=run.name,
            tags=list(run.tags),
            config={**run.config, "run": {"directory": run.directory, **run.facts}},
            dir=run.directory,
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=settings,
        )
        for row in rows:
            self.epoch(row)

    def epoch(self, row: Mapping[str, float]) -> None:
        if row["epoch"] >= self.run.step:  # the server has the earlier ones
            self.run.log(dict(row), step=int(row["epoch"]), commit=True)

    def finish(self, summary: Mapping[str, float], figures: Sequence[Path]) -> None:
        import wandb

        self.run.summary.update({f"summary/{name}": value for name, value in summary.items()})
        pictures = {f"figures/{file.stem}": wandb.Image(str(file)) for file in figures if file.suffix == ".png"}
        self.run.summary.update(pictures)

    def close(self, state: str) -> None:
        """Also raise OSError if the file isn't whole: the library doesn't notice that a disk is full."""
        import wandb

        offline, file = self.run.settings.mode == "offline", Path(self.run.settings.sync_file)
        self.run.finish(exit_code=EXIT_CODES[state])
        wandb.teardown()
        if offline and not any(record.WhichOneof("record_type") == "exit" for record in records(file)):
            raise OSError(f"{file} could not be written to its end")
        for folder in self.earlier:
            shutil.rmtree(folder)


def records(file: Path) -> Iterator[Any]:
    """The library's messages in a file: after a head, blocks of parts, each with a checksum, its size and its kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, message = file.read_bytes(), PART.size, b""
    while place + PART.size <= len(data):
        room = BLOCK - place % BLOCK
        if room < PART.size:
            place += room
            continue
        _, size, kind = PART.unpack_from(data, place)
        place += PART.size + size
        if place > len(data):
            return
        message += data[place - size : place]
        if kind in (WHOLE, LAST):
            yield Record.FromString(message)
            message = b""


def _is_logged_in() -> bool:
    import wandb

    return bool(wandb.api.api_key)


def _unsynced(folder: Path) -> list[Path]:
    """Folders of earlier offline records of this run that weren't uploaded: a new one repeats them."""
    return [path for path in folder.glob("offline-run-*") if path.is_dir() and not any(path.glob("*.synced"))]

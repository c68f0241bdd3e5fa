"""Weights & Biases: offline, in `RUN/wandb`, unless a config, WANDB_MODE or a login says otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from runners.trackers.tracker import About, Tracker

FOLDER = "wandb"
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
        earlier = [] if mode == "online" else _unsynced(Path(run.directory, FOLDER))
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, x_stats_pid=run.pid, login_timeout=1
        )
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            id=run.identity,
            name=run.name,
            tags=list(run.tags),
            notes=None,
            config={**run.config, "run": {"directory": run.directory, **run.facts}},
            config_exclude_keys=[],
            dir=run.directory,
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=settings,
        )
        for row in rows:
            self.epoch(row)
        for folder in earlier:
            shutil.rmtree(folder)

    def epoch(self, row: Mapping[str, float]) -> None:
        if row["epoch"] >= self.run.step:  # the server has the earlier ones
            self.run.log(dict(row), step=int(row["epoch"]), commit=True)

    def finish(self, summary: Mapping[str, float], figures: Sequence[Path]) -> None:
        import wandb

        self.run.summary.update({f"summary/{name}": value for name, value in summary.items()})
        pictures = {f"figures/{file.stem}": wandb.Image(str(file)) for file in figures if file.suffix == ".png"}
        self.run.summary.update(pictures)

    def close(self, state: str) -> None:
        import wandb

        self.run.finish(exit_code=EXIT_CODES[state])
        wandb.teardown()


def _is_logged_in() -> bool:
    import wandb

    return bool(wandb.api.api_key)


def _unsynced(folder: Path) -> list[Path]:
    """Folders of earlier offline records of this run that weren't uploaded: a new one repeats them."""
    return [path for path in folder.glob("offline-run-*") if path.is_dir() and not any(path.glob("*.synced"))]

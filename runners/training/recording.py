"""What is recorded of an experiment however it ends: config, status, log, and its trackers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from runners.config.schema import Config
from runners.data import Dataset
from runners.errors import RunFailed, program, shell_argument, typed
from runners.files.run_directory import RunDirectory
from runners.files.status import now
from runners.signals import Interrupted, SignalWatch
from runners.tasks.divergence import Diverged
from runners.tasks.task import Task
from runners.training import devices, origin
from runners.training.progress import Progress
from runners.training.tracking import Trackers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """A task, its data and config, its progress, and the weights that it didn't take over from another run."""

    config: Config
    dataset: Dataset
    task: Task
    progress: Progress
    left_out: Sequence[str] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where a new run comes from, as `origin` in status.json."""


def monitor(task: Task) -> dict[str, str | None]:
    """The column that determines the best epoch, and which is better, `higher` or `lower`, for comparisons."""
    return {"column": task.monitor, "better": task.metric(task.monitor).better}


@contextmanager
def recorded(directory: RunDirectory, experiment: Experiment, watch: SignalWatch) -> Iterator[Trackers]:
    """Keep the directory's config, log and status up to date, however the run ends; then close its trackers."""
    config = experiment.config
    root = logging.getLogger("runners")
    trackers = Trackers(config, directory, watch)
    handler = None
    try:
        directory.write_yaml("config.yaml", config.saved)
        directory.status(
            "running",
            diverged=False,
            started=directory.saved_status("started", now()),
            seed=config.settings.seed,
            device=str(config.device),
            device_name=devices.gpu_name(config.device),
            threads=config.threads,
            data_fingerprint=experiment.dataset.fingerprint,
            name=config.settings.name,
            tags=config.raw.get("tags", []),
            monitor=monitor(experiment.task),
            versions=devices.versions(config.device),
            **trackers.identity,
            **experiment.origin,
        )
        if experiment.origin:
            directory.write_patch(origin.changes().patch)
        handler = directory.open_log()
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        yield trackers
    except Interrupted as signal:
        log.warning("interrupted by %s; the state is saved in checkpoints/last.pkl", signal.name)
        with suppress(OSError):
            directory.status("interrupted", reason=signal.name)
        signal.resume = _resume_command(directory, config)
        raise
    except Exception as error:
        foreseen = isinstance(error, Diverged)
        if handler:
            log.error("the run failed: %s", error, exc_info=not foreseen)
        reason = str(error) if foreseen else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk or a deleted directory must not hide the failure itself
            directory.status("failed", reason=reason, diverged=foreseen)
        where = "" if foreseen or not handler else f" (traceback in {directory.path / 'run.log'})"
        if isinstance(error, OSError) and directory.checkpoint("last").exists():
            where += f"; continue from the last save with {_resume_command(directory, config)}"
        raise RunFailed(f"the run failed: {reason}{where}") from error
    finally:
        if handler:
            trackers.close()
            root.removeHandler(handler)
            handler.close()


def _resume_command(directory: RunDirectory, config: Config) -> str:
    """The command line that resumes a run; files of the user's own are named again."""
    files = config.settings.extensions
    given = [shell_argument("resume", directory.path)]
    if files:
        given.append(shell_argument("extensions", typed(files)))
    return " ".join([program("train"), *given])

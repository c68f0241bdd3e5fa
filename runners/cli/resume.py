"""The command behind `run.py resume=RUN`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cnn.faults import ConfigError, Fault
from cnn.text import show
from runners.config.grammar import latest
from runners.errors import RunDirectoryError
from runners.exit_codes import DONE, report_error
from runners.files import checkpoint
from runners.files.paths import user_path
from runners.files.status import read_status, state
from runners.training.resume import resume

RESUME_ARGUMENT = re.compile(r"\+{0,2}resume=")
"""The start of an argument that requests a resume."""


def main(arguments: Sequence[str]) -> int:
    """Resume a run; returns the exit code."""
    try:
        run, changes, may_change = parse_arguments(arguments)
        path = latest_unfinished() if run == "auto" else user_path(run)
        if run == "auto":
            print(f"resuming {path}", flush=True)
        result = resume(path, changes, may_change=may_change)
    except BaseException as error:
        return report_error(error)
    print(result.as_text())
    return DONE


def latest_unfinished(outputs: Path = Path("outputs")) -> Path:
    """The most recently saved run that isn't done, hasn't diverged and isn't in use by a process.

    Raises RunDirectoryError if there is none.
    """
    saved: dict[Path, float] = {}
    for file in (
        *outputs.rglob(f"checkpoints/{checkpoint.LAST}"),
        *outputs.rglob(f"checkpoints/{checkpoint.PREVIOUS}"),
    ):
        with suppress(FileNotFoundError):  # the run is being written to
            saved[file.parent.parent] = max(file.stat().st_mtime, saved.get(file.parent.parent, 0))
    unfinished = [
        run for run in saved if state(run) in ("interrupted", "died", "failed") and not read_status(run).get("diverged")
    ]
    if not unfinished:
        raise RunDirectoryError(f"resume: there is no unfinished run in {outputs}, give resume=RUN")
    return max(unfinished, key=lambda run: saved[run])


def parse_arguments(arguments: Sequence[str]) -> tuple[str, list[str], bool]:
    """The run, the other arguments, and whether these may change what the run computes. Raises ConfigError."""
    run, overrides, may_change, faults = "", [], False, []
    for argument in latest(arguments):
        key, _, value = argument.partition("=")
        key = key.lstrip("+")
        if key == "resume":
            run = value
        elif key == "resume_changed":
            may_change = value == "true"
            if value not in ("true", "false"):
                faults.append(Fault(key, f"{show(value)} is not allowed, give true or false"))
        elif argument.startswith("-"):
            faults.append(Fault(argument, "can't be combined with resume=RUN"))
        else:
            overrides.append(argument)
    if not run:
        faults.append(Fault("resume", "must be a run directory, or auto"))
    if faults:
        raise ConfigError(faults)
    return run, overrides, may_change

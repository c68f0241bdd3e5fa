"""The command behind run.py: it parses, calls runners, and says how it went."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import hydra

from cnn import ConfigError
from runners.config import overrides, yaml_files
from runners.config.overrides import Command
from runners.exit_codes import DONE, conclude
from runners.files.run_directory import new_name
from runners.signals import raising_signals
from runners.sweeps import directory as sweep
from runners.sweeps.jobs import Jobs
from runners.training import resume


def main(arguments: Sequence[str]) -> int:
    """Compose with Hydra, then run or sweep; or resume a run. Returns the exit code."""
    if any(resume.ASKED.match(argument) for argument in arguments):
        return _resume(arguments)
    command = overrides.prepare(arguments)
    folders = [overrides.CONFIGS, *command.folders]
    endless = yaml_files.explosions(folders)
    if endless or (command.faults and (command.sweeping or command.showing)):
        return conclude(ConfigError([*command.faults, *endless]))
    jobs = Jobs(command)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them and exiting
    try:
        with raising_signals(), tempfile.TemporaryDirectory() as scratch, _sweep_directory(command) as jobs.sweep_dir:
            sys.argv[1:] = [*command.flags, *_hydra_settings(jobs.sweep_dir, scratch), *command.overrides]
            hydra.main(version_base="1.3", config_path=str(overrides.CONFIGS), config_name="config")(jobs.run)()
    except SystemExit:  # --help
        raise
    except BaseException as error:
        jobs.blame(error, folders)
    print("".join(f"{report}\n" for report in jobs.reports()), end="")
    return jobs.exit_code


def _resume(arguments: Sequence[str]) -> int:
    try:
        run, typed, may_change = resume.parse_arguments(arguments)
        path = resume.latest_unfinished() if run == "auto" else Path(run)
        if run == "auto":
            print(f"going on with {path}", flush=True)
        result = resume.resume(path, typed, may_change=may_change)
    except BaseException as error:
        return conclude(error)
    print(result.in_words() if result else f"{run}: finished already; give more epochs=N to train on")
    return DONE


def _sweep_directory(command: Command) -> AbstractContextManager[Path | None]:
    if not command.sweeping:
        return nullcontext()
    return sweep.directory(command.sweep_dir or Path(f"outputs/sweeps/{new_name()}"))


def _hydra_settings(sweep_dir: Path | None, scratch: str) -> list[str]:
    """Where all jobs of a sweep go. What Hydra itself writes of one goes to a temporary place."""
    if sweep_dir is None:
        return ["hydra.mode=RUN"]
    quoted = overrides.quoted
    return ["hydra.mode=MULTIRUN", f"hydra.sweep.dir={quoted(scratch)}", f"++sweep_dir={quoted(str(sweep_dir))}"]

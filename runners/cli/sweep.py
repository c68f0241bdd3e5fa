"""The command behind `run.py -m`: a new sweep, or one that goes on."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import hydra

from cnn import ConfigError
from cnn.faults import Fault
from cnn.ops.threads import available_threads
from runners.cli.sweep_arguments import resumed
from runners.config import folders, hydra_settings, overrides, yaml_files
from runners.config.grammar import MAX_JOBS, quoted
from runners.config.overrides import Command
from runners.errors import InputError, RunDirectoryError, print_to_stderr, program, shell_argument
from runners.exit_codes import BAD_INPUT, report_error
from runners.files.run_directory import new_name
from runners.files.status import now
from runners.signals import raising_signals
from runners.sweeps import directory, launchers
from runners.sweeps.directory import Sweep
from runners.sweeps.ending import Ending
from runners.sweeps.jobs import Jobs
from runners.sweeps.pool import Terms
from runners.sweeps.record import Start
from runners.training import devices, origin

OUTPUTS = Path("outputs/sweeps")


def main(arguments: Sequence[str]) -> int:
    """Run all jobs of a command with `-m`, or those that an earlier start has left; returns the exit code."""
    try:
        arguments = resumed(arguments, OUTPUTS)
        prepared = _prepare(arguments)
    except (ConfigError, InputError) as error:
        return report_error(error)
    command = prepared.command
    if command.sweep_dir is None:
        _mention_unfinished(arguments)
    path = command.sweep_dir or OUTPUTS / new_name()
    ending = Ending(command, path, prepared.folders, others=prepared.launcher == "other")
    composed = hydra.main(version_base="1.3", config_path=str(folders.CONFIGS), config_name="config")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and exiting
    try:
        with raising_signals(ending.end_jobs), tempfile.TemporaryDirectory() as scratch:
            with directory.opened(path, _start(arguments, prepared.folders)) as sweep:
                ending.jobs = Jobs(sweep, _terms(prepared))
                _warn_of_changes(sweep)
                sys.argv[1:] = prepared.for_hydra(scratch)
                try:
                    composed(ending.jobs)()
                finally:
                    with suppress(RunDirectoryError):  # somebody has removed it, which is known by then
                        ending.listed = sweep.jobs()
            ending.wait()
    except BaseException as error:
        ending.report(error)
        ending.wait()
    try:
        print(ending.as_text(), end="", flush=True)
    except OSError:
        if ending.exit_code <= BAD_INPUT:  # else the terminal was closed, and the signal's exit code says so
            raise
    return ending.exit_code


@dataclass(frozen=True)
class Prepared:
    """The command of a sweep, the folders of its configs, and the launcher that it chooses.

    Hydra's own launcher, `basic`, is replaced by `local`.
    """

    command: Command
    folders: Sequence[Path]
    launcher: str

    def for_hydra(self, scratch: str) -> list[str]:
        """The arguments for Hydra, whose own files are temporary."""
        settings = [
            *hydra_settings.fixed(program("train")),
            "hydra.mode=MULTIRUN",
            f"hydra.sweep.dir={quoted(scratch)}",
        ]
        given = self.command.overrides
        if self.launcher == "basic":
            given = [*(text for text in given if not text.startswith("hydra/launcher=")), "hydra/launcher=local"]
        return [*self.command.flags, *settings, *given]


def _prepare(arguments: Sequence[str]) -> Prepared:
    """What is known before the sweep starts. Raises ConfigError with every fault that can be found then."""
    command = overrides.prepare(arguments)
    searched = [folders.CONFIGS, *command.folders]
    faults = [*command.faults, *yaml_files.alias_bombs(searched)] or hydra_settings.find_faults(command)
    if faults:
        raise ConfigError(faults)
    launcher = hydra_settings.launcher(command)
    ours = launcher.is_ours or launcher.name == "basic"
    if ours:
        launchers.runner(launcher.name, launcher.settings)
    elif "jobs" in command.settings.model_fields_set:
        problem = f"is for {', '.join(launchers.NAMES)}, but {launcher.name} is chosen"
        raise ConfigError([Fault("jobs", f"{problem}: see its own settings, hydra.launcher.KEY")])
    return Prepared(command, searched, launcher.name if ours else "other")


def _mention_unfinished(arguments: Sequence[str]) -> None:
    """Name a sweep of the same command that has jobs left to do, as this start begins a new one."""
    found = directory.unfinished(arguments, OUTPUTS)
    if found:
        again = f"{program('train')} -m {shell_argument('resume', found)}"
        print_to_stderr(f"note: {found} has jobs of this command left to do; to go on with them: {again}")


def _warn_of_changes(sweep: Sweep) -> None:
    """Warn if the code has changed since the sweep was last started: what is done stays as it is."""
    starts = sweep.starts()
    if len(starts) > 1:
        before, after = (start.origin.get("commit") for start in starts[-2:])
        if before and after and before != after:
            changed = f"commit {before[:12]} is now {after[:12]}"
            was = "warning: the code has changed since this sweep was last started"
            print_to_stderr(f"{was}: {changed}; done jobs are kept")


def _start(arguments: Sequence[str], searched: Sequence[Path]) -> Start:
    """What sweep.yaml records of this start."""
    code = origin.changes()
    return Start(
        command=shlex.join([*program("train").split(), *arguments]),
        arguments=list(arguments),
        folder=str(Path.cwd()),
        started=now(),
        origin={"commit": code.commit, "branch": code.branch, "dirty": code.dirty, "host": platform.node()},
        versions=devices.versions(devices.CPU),
        configs=yaml_files.digest(searched),
    )


def _terms(prepared: Prepared) -> Terms:
    """How the jobs run. Those that run at once on this machine share its cores; a cluster bounds them itself."""
    command, settings = prepared.command, prepared.command.settings
    on_cluster = prepared.launcher in launchers.CLUSTERS
    at_once = MAX_JOBS if on_cluster and "jobs" not in settings.model_fields_set else settings.jobs
    flags = [text for folder in command.folders for text in ("--config-dir", str(folder))]
    threads = max(1, available_threads() // at_once) if at_once > 1 and not on_cluster else None
    return Terms(Path.cwd(), tuple(flags), at_once, threads, settings.retry, settings.stop_on_failure)

"""The command behind run.py: parse the arguments, run, print the result."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import hydra

from cnn import ConfigError
from runners.cli import resume
from runners.config import folders, grammar, hydra_settings, overrides, yaml_files
from runners.config.overrides import Command
from runners.errors import program
from runners.exit_codes import report_error
from runners.files.run_directory import new_name
from runners.signals import raising_signals
from runners.sweeps import directory as sweep
from runners.sweeps.jobs import Jobs


def main(arguments: Sequence[str]) -> int:
    """Compose the config with Hydra, then run or sweep; or resume a run. Returns the exit code."""
    if any(resume.RESUME_ARGUMENT.match(argument) for argument in arguments):
        return resume.main(arguments)
    command = overrides.prepare(arguments)
    searched = [folders.CONFIGS, *command.folders]
    bombs = yaml_files.alias_bombs(searched)
    if bombs or (command.faults and (command.sweeping or command.showing)):
        return report_error(ConfigError([*command.faults, *bombs]))
    unused = hydra_settings.find_faults(command)
    if unused:
        return report_error(ConfigError([*command.faults, *unused]))
    jobs = Jobs(command)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and exiting
    try:
        with raising_signals(), tempfile.TemporaryDirectory() as scratch, _sweep_directory(command) as jobs.sweep_dir:
            sys.argv[1:] = [*command.flags, *_hydra_settings(jobs.sweep_dir, scratch), *command.overrides]
            hydra.main(version_base="1.3", config_path=str(folders.CONFIGS), config_name="config")(jobs.run)()
    except SystemExit:  # --help
        raise
    except BaseException as error:
        jobs.report_failure(error, searched)
    print("".join(f"{report}\n" for report in jobs.reports()), end="")
    return jobs.exit_code


def _sweep_directory(command: Command) -> AbstractContextManager[Path | None]:
    if not command.sweeping:
        return nullcontext()
    return sweep.directory(command.sweep_dir or Path(f"outputs/sweeps/{new_name()}"))


def _hydra_settings(sweep_dir: Path | None, scratch: str) -> list[str]:
    """The overrides that set the program's name and the directory of a sweep. Hydra's own files are temporary."""
    quoted = grammar.quoted
    named = f"hydra.help.app_name={quoted(program('train'))}"
    fixed = [named, "hydra.run.dir=.", "hydra.job.chdir=false", "hydra.output_subdir=null"]
    if sweep_dir is None:
        return [*fixed, "hydra.mode=RUN"]
    return [
        *fixed,
        "hydra.mode=MULTIRUN",
        f"hydra.sweep.dir={quoted(scratch)}",
        f"++sweep_dir={quoted(str(sweep_dir))}",
    ]

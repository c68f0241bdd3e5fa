"""The command behind run.py: parse the arguments, run, print the result."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import hydra

from cnn import ConfigError
from runners.cli import resume, sweep
from runners.cli.single import SingleRun
from runners.cli.sweep_arguments import is_sweep
from runners.config import composition, folders, hydra_settings, overrides, yaml_files
from runners.errors import program
from runners.exit_codes import DONE, report_error
from runners.signals import raising_signals


def main(arguments: Sequence[str]) -> int:
    """Compose the config with Hydra, then run; or resume a run, or sweep. Returns the exit code."""
    if is_sweep(arguments):
        return sweep.main(arguments)
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
    run = SingleRun(command)
    mode = f"hydra.mode={'MULTIRUN' if command.sweeping else 'RUN'}"  # a sweep only to be shown
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and exiting
    sys.argv[1:] = [*command.flags, *hydra_settings.fixed(program("train")), mode, *command.overrides]
    try:
        with raising_signals():
            hydra.main(version_base="1.3", config_path=str(folders.CONFIGS), config_name="config")(run)()
    except SystemExit:  # --help
        raise
    except BaseException as error:
        if isinstance(error, composition.COMPOSITION_ERRORS) and not isinstance(error, ConfigError):
            error = ConfigError([*command.faults, *composition.from_hydra(error, searched).faults])
        return report_error(error)
    if run.error:
        return report_error(run.error)
    print(run.text)
    return DONE

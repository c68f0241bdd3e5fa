"""From command-line arguments to Hydra's arguments, with every fault that can be found before a config is composed.

Even unknown keys are passed on, so that the schema can report all mistakes together.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import NoReturn

from cnn.faults import ConfigError, Fault
from cnn.text import closest, nearest, show
from runners.config import sweeping
from runners.config.folders import choices, groups, own, shadowed
from runners.config.grammar import MAX_JOBS, NEW_DIRECTORIES, PATHS, ParsedOverride, for_hydra, latest, read, refuse
from runners.config.sweeping import SweepSettings
from runners.files.paths import is_sweep, user_path, why_not_new

HYDRA_KEY = re.compile(r"hydra\b")
SWEEP_KEY = re.compile(r"hydra[./](launcher|sweeper)\b")
"""The keys of Hydra that can be set: sweeper and launcher. Others could make it write files, or sweep unasked."""

OPTIONAL = ("experiment", "debug")
"""Groups in which `null` chooses nothing."""

SHADOWED = "one of the project's own configs has this name and would be used: give the file another"
NOT_IN_A_SWEEP = "a sweep creates a directory for each job, give sweep_dir instead"


@dataclass
class Command:
    """A command line for Hydra. Arguments that can't be used are left out, and reported in `faults`."""

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    """Where to look for configs in addition to the project's own."""
    unchecked: list[str] = field(default_factory=list)
    """Groups with an unknown choice: other overrides of these groups can't be checked."""
    sweep_dir: Path | None = None
    """The directory for all jobs of a sweep, if given."""
    settings: SweepSettings = field(default_factory=SweepSettings)

    @property
    def sweeping(self) -> bool:
        return "--multirun" in self.flags

    @property
    def showing(self) -> bool:
        """Whether to print something instead of running."""
        return "--help" in self.flags or "--cfg" in self.flags


FLAGS = ("-m", "--multirun", "--help", "--cfg", "--resolve", "--config-dir")
"""The flags of Hydra that are supported. (One of the others would unpickle a file.)"""
ONE_CONFIG = "not supported, give experiment=NAME; --config-dir FOLDER adds the experiments in FOLDER/experiment"


class _Flags(argparse.ArgumentParser):
    """Extracts the flags, in any position, from the arguments."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("-m", "--multirun", action="store_true")
        self.add_argument("-h", "--help", action="store_true")
        self.add_argument("-c", "--cfg", choices=["job"])
        self.add_argument("--resolve", action="store_true")
        self.add_argument("-cd", "--config-dir")
        self.add_argument("-cn", "--config-name")
        self.add_argument("-cp", "--config-path")

    def error(self, message: str) -> NoReturn:
        refuse("", message)


def prepare(arguments: Sequence[str]) -> Command:
    """Parse the arguments of a command line."""
    command = Command()
    try:
        options, rest = _Flags().parse_known_args(arguments)
    except ConfigError as error:
        command.faults += error.faults
        return command
    command.flags = [f"--{name}" for name in ("multirun", "help") if getattr(options, name)]
    command.flags += ["--cfg", options.cfg] if options.cfg else []
    if options.resolve and not options.cfg:
        command.faults.append(Fault("--resolve", "is only allowed with --cfg job"))
    elif options.resolve:
        command.flags.append("--resolve")
    searched = own() if options.config_dir is None else [user_path(options.config_dir)]
    for folder in searched:
        if folder.is_dir():
            command.flags += ["--config-dir", str(folder)]
            command.folders.append(folder)
            command.faults += [Fault(str(file), SHADOWED) for file in shadowed(folder)]
        else:
            command.faults.append(Fault("--config-dir", f"there is no directory {options.config_dir}"))
    chosen = {"--config-name": options.config_name, "--config-path": options.config_path}
    command.faults += [Fault(flag, ONE_CONFIG) for flag, value in chosen.items() if value is not None]
    unknown = [argument for argument in rest if argument.startswith("-")]
    hints = {flag: f"{nearest(flag, FLAGS)}; settings are given as key=value" for flag in unknown}
    hints |= {flag: "give resume=RUN" for flag in unknown if flag.partition("=")[0] == "--resume"}
    command.faults += [Fault(flag, f"unknown, {hints[flag]}") for flag in unknown]
    _add_overrides(command, latest([argument for argument in rest if argument not in unknown]))
    return command


def _read_all(arguments: Sequence[str], command: Command) -> dict[str, ParsedOverride]:
    """The overrides that can be parsed, by key."""
    given: dict[str, ParsedOverride] = {}
    for argument in arguments:
        try:
            override = read(argument)
        except ConfigError as error:
            command.faults += error.faults
            command.unchecked += [fault.place for fault in error.faults if fault.place in groups()]
            continue
        given[override.key] = override
    return given


def _add_overrides(command: Command, arguments: Sequence[str]) -> None:
    """Add the valid overrides to a command, and the faults of the others."""
    given = _read_all(arguments, command)
    _take_settings(command, given)
    usable: dict[str, str] = {}
    for key, override in given.items():
        faults = list(_faults(override, command, given))
        likely = closest(_stem(override.text), choices(key, command.folders)) if faults and key in groups() else None
        if not faults or likely:  # keys in a misspelled choice are checked against the likely one
            usable[key] = likely or override.text
        elif key in groups():
            command.unchecked.append(key)
        command.faults += faults
    for key, text in usable.items():
        chosen = key in groups() or "/" in key
        nothing = key == "sweep_dir" or (key in OPTIONAL and text == "null")
        if not nothing and key.split(".")[0] not in command.unchecked:
            command.overrides.append(f"{'' if chosen else '++'}{key}={for_hydra(key, text)}")
    counted = command.sweeping and "hydra/sweeper" not in given
    if counted and prod(len(given[key].values(command.folders)) for key in usable) > MAX_JOBS:
        command.faults.append(Fault("--multirun", f"this is more than {MAX_JOBS:,} jobs"))


def _take_settings(command: Command, given: dict[str, ParsedOverride]) -> None:
    """Move the settings of the sweep from the overrides to the command."""
    values = {}
    for key in [key for key in sweeping.KEYS if key in given]:
        override = given.pop(key)
        if not command.sweeping:
            command.faults.append(Fault(key, sweeping.NOT_SWEEPING))
        elif override.sweeps:
            command.faults.append(Fault(key, f"{override.text} is more than one value, give one"))
        else:
            values[key] = override.parsed.value()
    command.settings, faults = sweeping.parse(values)
    command.faults += faults


def _faults(override: ParsedOverride, command: Command, given: Collection[str]) -> Iterator[Fault]:
    """The faults of an override that can be parsed. `given`: the keys of all overrides."""
    key, text = override.key, override.text
    if HYDRA_KEY.match(key) and not (SWEEP_KEY.match(key) and command.sweeping):
        yield Fault(key, "only hydra/launcher, hydra/sweeper and their keys can be set, for a sweep (-m)")
    elif setting := re.fullmatch(r"hydra\.(launcher|sweeper)(\._target_)?", key):
        yield Fault(key, f"can't be set, choose one with hydra/{setting[1]}=NAME")
    elif HYDRA_KEY.match(key) and "_target_" in f"{key}={text}":
        yield Fault(key, "_target_ can't be set: it would call whatever it names")
    elif HYDRA_KEY.match(key) and override.sweeps:
        yield Fault(key, f"{text} is more than one value, but a sweep has one launcher and one sweeper: give one")
    elif override.sweeps and not command.sweeping:
        listed = re.fullmatch(r"[\w.,-]+", text) and key not in groups() and key not in PATHS
        hint = f", or give [{text}] for a list" if listed else ""
        yield Fault(key, f"{text} is more than one value, add -m to sweep{hint}")
    elif override.parsed.is_interval_sweep():
        if "hydra/sweeper" not in given or key in groups():
            yield Fault(
                key, f"{text} is an interval, give values, a,b,c or range(start,stop,step), or hydra/sweeper=optuna"
            )
    elif override.sweeps and not override.values(command.folders):
        yield Fault(key, f"{text} gives no value")
    elif key in groups():
        yield from _unknown_choices(override, command.folders, extended="extensions" in given)
    elif key in NEW_DIRECTORIES:
        yield from _misplaced(override, command)
    elif (group := key.removesuffix(".name")) in groups() and text in choices(group):
        yield Fault(key, f"choose it with {group}={text}, which also sets its arguments")


def _unknown_choices(override: ParsedOverride, folders: Sequence[Path], *, extended: bool) -> Iterator[Fault]:
    """A fault for each name that isn't a choice of its group."""
    known = choices(override.key, folders)
    for name in override.values(folders):
        if name not in known and not (override.key in OPTIONAL and override.text == "null"):
            hint = f"; to choose one that an extension defines, give {override.key}.name={name}" if extended else ""
            hint = f"; give single values as {override.key}.KEY=VALUE" if name.startswith("{") else hint
            yield Fault(override.key, f"unknown {show(name)}, {nearest(_stem(name), known)}{hint}")


def _stem(name: str) -> str:
    """The choice that a file name stands for."""
    return Path(name).stem


def _misplaced(override: ParsedOverride, command: Command) -> Iterator[Fault]:
    """Faults for a directory of the other kind of command, or one that can't be created."""
    key, value = override.key, override.parsed.value()
    if value is None:
        return
    if key == "run_dir" and command.sweeping:
        yield Fault(key, NOT_IN_A_SWEEP)
    elif key == "sweep_dir" and not command.sweeping:
        yield Fault(key, "is only used by a sweep (-m), give run_dir instead")
    elif isinstance(value, str) and value and "${" not in value:
        problem = None if command.sweeping and is_sweep(user_path(value)) else why_not_new(user_path(value))
        if problem:
            yield Fault(key, problem)
        elif command.sweeping:
            command.sweep_dir = user_path(value)
    elif command.sweeping:  # run_dir is checked with the rest of the config
        yield Fault(key, f"{show(value)} is not allowed, give a text")

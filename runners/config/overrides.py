"""From what is typed to what Hydra is given, with every fault that shows before a config is composed.

Keys are forced in even where they are unknown, so that the schema can tell all mistakes together.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from pathlib import Path
from typing import NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from cnn.faults import ConfigError, Fault
from cnn.text import closest, nearest, show

CONFIGS = Path(__file__).parents[2] / "configs"
KEY = r"[A-Za-z_]\w*(?:\.\w+)*"
OVERRIDE = re.compile(rf"(?P<prefix>\+{{0,2}})(?P<key>{KEY}|hydra/\w+)=(?P<value>.*)", re.ASCII | re.DOTALL)
OF_HYDRA = re.compile(r"hydra\b")
OF_SWEEPS = re.compile(r"hydra[./](launcher|sweeper)\b")
"""What can be changed of Hydra: who sweeps and who launches. The rest would make it write files, or sweep unasked."""

OPTIONAL = ("experiment", "debug")
"""Groups of which nothing may be chosen."""

NEW_DIRECTORIES = ("run_dir", "sweep_dir")
OTHER_THAN_TEXT = re.compile(r"[+-]?[\d._]+(e[+-]?\d+)?|[+-]?(inf|nan)|true|false", re.ASCII | re.IGNORECASE)
"""What Hydra's grammar takes for a number or a truth value."""
PATHS = (*NEW_DIRECTORIES, "init_from", "data.path")
MOST_JOBS = 10_000


@dataclass
class Command:
    """A command line as Hydra is given it. What can't be used of it is left out and told in `faults`."""

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    """Where configs are found beside the project's own."""
    unjudged: list[str] = field(default_factory=list)
    """Groups of which something unknown is chosen: what else is typed of them can't be judged."""
    sweep_dir: Path | None = None
    """The directory for all jobs of a sweep, if one is typed."""

    @property
    def sweeping(self) -> bool:
        return "--multirun" in self.flags

    @property
    def showing(self) -> bool:
        """Whether something is shown and nothing is run."""
        return "--help" in self.flags or "--cfg" in self.flags


FLAGS = ("-m", "--multirun", "--help", "--cfg", "--resolve", "--config-dir")
"""Those of Hydra's flags that mean something here. (One of the others would unpickle a file.)"""


class _Flags(argparse.ArgumentParser):
    """Takes the flags, wherever they stand, and leaves the rest."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("-m", "--multirun", action="store_true")
        self.add_argument("-h", "--help", action="store_true")
        self.add_argument("-c", "--cfg", choices=["job"])
        self.add_argument("--resolve", action="store_true")
        self.add_argument("-cd", "--config-dir")

    def error(self, message: str) -> NoReturn:
        _refuse("", message)


def prepare(arguments: Sequence[str]) -> Command:
    """Read the arguments of a command line."""
    command = Command()
    try:
        options, rest = _Flags().parse_known_args(arguments)
    except ConfigError as error:
        command.faults += error.faults
        return command
    command.flags = [f"--{name}" for name in ("multirun", "help") if getattr(options, name)]
    command.flags += ["--cfg", options.cfg] if options.cfg else []
    if options.resolve and not options.cfg:
        command.faults.append(Fault("--resolve", "belongs to --cfg job"))
    elif options.resolve:
        command.flags.append("--resolve")
    if options.config_dir is not None and Path(options.config_dir).is_dir():
        command.flags += ["--config-dir", options.config_dir]
        command.folders.append(Path(options.config_dir))
    elif options.config_dir is not None:
        command.faults.append(Fault("--config-dir", f"there is no directory {options.config_dir}"))
    unknown = [argument for argument in rest if argument.startswith("-")]
    hints = {flag: f"{nearest(flag, FLAGS)}; settings are given as key=value" for flag in unknown}
    hints |= {flag: "give resume=RUN" for flag in unknown if flag.partition("=")[0] == "--resume"}
    command.faults += [Fault(flag, f"unknown, {hints[flag]}") for flag in unknown]
    _add_overrides(command, [argument for argument in rest if argument not in unknown])
    return command


@dataclass(frozen=True)
class Typed:
    """`key=text`, as Hydra understands it."""

    key: str
    text: str
    parsed: Override

    @property
    def sweeps(self) -> bool:
        return self.parsed.is_sweep_override()

    def values(self, folders: Sequence[Path]) -> list[str]:
        """What is typed; of a sweep each of its values, or as many as no sweep may have."""
        value = self.parsed.value()
        if isinstance(value, Glob):
            return value.filter(choices(self.key, folders))
        return list(islice(self.parsed.sweep_string_iterator(), MOST_JOBS + 1)) if self.sweeps else [self.text]


def _read_all(arguments: Sequence[str], command: Command) -> dict[str, Typed]:
    """All that can be read as overrides, by key."""
    given: dict[str, Typed] = {}
    for argument in arguments:
        try:
            override = read(argument)
        except ConfigError as error:
            command.faults += error.faults
            command.unjudged += [fault.place for fault in error.faults if fault.place in groups()]
            continue
        first = given.setdefault(override.key, override)
        command.faults += given_twice(override.key, first.text, override.text)
    return given


def given_twice(key: str, first: str, text: str) -> list[Fault]:
    """A fault where a key is given another value than the one that it has already."""
    return [Fault(key, f"given twice, as {first} and as {text}: give it once")] if first != text else []


def _add_overrides(command: Command, arguments: Sequence[str]) -> None:
    """Add to a command the overrides that can be used, and the faults of the others."""
    given = _read_all(arguments, command)
    usable: dict[str, str] = {}
    for key, override in given.items():
        faults = list(_faults(override, command, other_sweeper="hydra/sweeper" in given))
        likely = closest(_stem(override.text), choices(key, command.folders)) if faults and key in groups() else None
        if not faults or likely:  # what is typed below a misspelled choice is judged by the one that is likely meant
            usable[key] = likely or override.text
        elif key in groups():
            command.unjudged.append(key)
        command.faults += faults
    for key, text in usable.items():
        chosen = key in groups() or "/" in key
        nothing = key == "sweep_dir" or (key in OPTIONAL and text == "null")
        if not nothing and key.split(".")[0] not in command.unjudged:
            command.overrides.append(f"{'' if chosen else '++'}{key}={_for_hydra(key, text)}")
    counted = command.sweeping and "hydra/sweeper" not in given
    if counted and prod(len(given[key].values(command.folders)) for key in usable) > MOST_JOBS:
        command.faults.append(Fault("--multirun", f"these are more than {MOST_JOBS:,} jobs"))


def read(argument: str) -> Typed:
    """An argument as an override. Raises ConfigError where it can't be one."""
    match = OVERRIDE.fullmatch(argument)
    if match is None and argument.startswith("~"):
        _refuse(argument, "nothing can be taken out of a config, give key=value")
    if match is None and re.fullmatch(KEY, argument, re.ASCII):
        _refuse(argument, "a key needs a value, give key=value")
    if match is None:
        _refuse("", f"{show(argument)} is not key=value, as model.width=8 or model.layers.0.conv2d.kernel_size=5 is")
    key, text = match["key"], match["value"]
    try:
        return Typed(key, text, OverridesParser.create().parse_override(f"{key}={_for_hydra(key, text)}"))
    except RecursionError:
        _refuse(key, f"{show(text)} can't be read: lists stand too deep in lists")
    except (HydraException, ValueError) as error:
        reason = str(error).partition(" while evaluating ")[2].partition("': ")[2]
        if not reason:
            reason = f"check brackets and quotes, and put a text with unusual signs in quotes, {key}='\"...\"'"
        _refuse(key, f"{show(text)} can't be read: {' '.join(reason.split())}")


def _faults(override: Typed, command: Command, other_sweeper: bool) -> Iterator[Fault]:
    """What is wrong with an override that can be read."""
    key, text = override.key, override.text
    if OF_HYDRA.match(key) and not (OF_SWEEPS.match(key) and command.sweeping):
        yield Fault(key, "of Hydra, only hydra/launcher, hydra/sweeper and their keys can be changed, for a sweep (-m)")
    elif override.sweeps and not command.sweeping:
        listed = re.fullmatch(r"[\w.,-]+", text) and key not in groups() and key not in PATHS
        hint = f", or give [{text}] for a list" if listed else ""
        yield Fault(key, f"{text} are several values, put -m before them to sweep{hint}")
    elif override.parsed.is_interval_sweep():
        if not other_sweeper:
            yield Fault(key, f"{text} has no end of values, give some of them: a,b,c or range(start,stop,step)")
    elif override.sweeps and not override.values(command.folders):
        yield Fault(key, f"{text} gives no value")
    elif key in groups():
        yield from _unknown_choices(override, command.folders)
    elif key in NEW_DIRECTORIES:
        yield from _misplaced(override, command)
    elif (group := key.removesuffix(".name")) in groups() and text in choices(group):
        yield Fault(key, f"choose it with {group}={text}, which brings its arguments with it")


def _unknown_choices(override: Typed, folders: Sequence[Path]) -> Iterator[Fault]:
    """A fault for each name that a group doesn't offer."""
    known = choices(override.key, folders)
    for name in override.values(folders):
        if name not in known and not (override.key in OPTIONAL and override.text == "null"):
            yield Fault(override.key, f"unknown {show(name)}, {nearest(_stem(name), known)}")


def _stem(name: str) -> str:
    """The choice that is meant by the name of its file."""
    return Path(name).stem


def _misplaced(override: Typed, command: Command) -> Iterator[Fault]:
    """Directories where the other kind of start makes them, or where none can be made."""
    key, value = override.key, override.parsed.value()
    if value is None:
        return
    if key == "run_dir" and command.sweeping:
        yield Fault(key, "a sweep makes a directory for each job, give sweep_dir")
    elif key == "sweep_dir" and not command.sweeping:
        yield Fault(key, "only a sweep (-m) uses it, give run_dir")
    elif isinstance(value, str) and value and "${" not in value:
        problem = _why_not(Path(value))
        if problem:
            yield Fault(key, problem)
        elif command.sweeping:
            command.sweep_dir = Path(value)
    elif command.sweeping:  # a run's is checked with the rest of its config
        yield Fault(key, f"{show(value)} is not allowed, give a text")


def _why_not(path: Path) -> str | None:
    """Why no directory can be made here, as far as that shows before it is tried."""
    if os.path.lexists(path):
        return f"{path} exists already, give a new one or remove it"
    above = path.absolute().parent
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        return f"{path} can't be made: {above} is not a directory"
    if not os.access(above, os.W_OK | os.X_OK):
        return f"{path} can't be made: {above} is not writable"
    return None


def _for_hydra(key: str, text: str) -> str:
    """A value for Hydra's grammar: paths are taken as they stand, with spaces, `=` and letters of all alphabets."""
    if key not in PATHS or text in ("", "null") or text[0] in "\"'$":
        return text
    return quoted(text, also="" if key in NEW_DIRECTORIES else ",")


def quoted(text: str, also: str = "") -> str:
    """A text in quotes, where Hydra's grammar wants them; not for signs that stand in `also`."""
    plain = re.fullmatch(rf"[\w./{also}-]*", text, re.ASCII) and not OTHER_THAN_TEXT.fullmatch(text)
    return text if plain else '"' + text.replace('"', '\\"') + '"'


def _refuse(place: str, problem: str) -> NoReturn:
    raise ConfigError([Fault(place, problem)])


def groups() -> list[str]:
    """The groups of configs: data, model, optimizer, ..."""
    return sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir())


def choices(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """The names that a group offers, in the project's configs and in other folders."""
    return sorted({file.stem for folder in (CONFIGS, *folders) for file in (folder / group).glob("*.yaml")})

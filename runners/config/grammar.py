"""One override, `key=value`: how it is parsed in Hydra's grammar, and how text is written in it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from cnn.faults import ConfigError, Fault
from cnn.text import short, show
from runners.config.folders import choices

log = logging.getLogger(__name__)
KEY = r"[A-Za-z_]\w*(?:\.\w+)*"
OVERRIDE = re.compile(rf"(?P<prefix>\+{{0,2}})(?P<key>{KEY}|hydra/\w+)=(?P<value>.*)", re.ASCII | re.DOTALL)
OWN_SECTION = r"[A-Za-z_]\w*_(?:optimizer|schedule)"
CHOICE = re.compile(rf"(?P<start>\+{{0,2}}{OWN_SECTION})(?P<end>=(?!null$)[A-Za-z].*)", re.ASCII | re.DOTALL)
"""A choice for one network, such as `critic_optimizer=sgd`, and no value such as `{lr: 0.1}`."""
NEW_DIRECTORIES = ("run_dir", "sweep_dir")
OTHER_THAN_TEXT = re.compile(r"[+-]?[\d._]+(e[+-]?\d+)?|[+-]?(inf|nan)|true|false", re.ASCII | re.IGNORECASE)
"""Text that Hydra's grammar parses as a number or a boolean."""
PATHS = (*NEW_DIRECTORIES, "init_from", "data.path")
IN_HOME = re.compile(r"(^|(?<=[\[, ]))~[^],\"']*")
"""A path below a home directory, alone or in a list, without quotes."""
LITERAL = (*PATHS, "name")
"""Keys whose value is taken as a text, even if it looks like a number."""
MAX_JOBS = 10_000


@dataclass(frozen=True)
class ParsedOverride:
    """`key=text`, as Hydra parses it."""

    key: str
    text: str
    parsed: Override

    @property
    def sweeps(self) -> bool:
        return self.parsed.is_sweep_override()

    def values(self, folders: Sequence[Path]) -> list[str]:
        """The value as text; all values of a sweep, up to one more than a sweep may have."""
        value = self.parsed.value()
        if isinstance(value, Glob):
            return value.filter(choices(self.key, folders))
        return list(islice(self.parsed.sweep_string_iterator(), MAX_JOBS + 1)) if self.sweeps else [self.text]


def spelled_out(argument: str) -> str:
    """`critic_optimizer.name=sgd` for `critic_optimizer=sgd`: a section of one network has no config group."""
    match = CHOICE.fullmatch(argument)
    return f"{match['start']}.name{match['end']}" if match else argument


def is_choice(key: str) -> bool:
    """Whether a key is the name of one network's optimizer or schedule, such as `critic_optimizer.name`."""
    return re.fullmatch(rf"{OWN_SECTION}\.name", key, re.ASCII) is not None


def latest(arguments: Sequence[str]) -> list[str]:
    """The arguments without those whose key is given again later; a note is logged if the values differ."""
    kept: dict[str, str] = {}
    for argument in map(spelled_out, arguments):
        match = OVERRIDE.fullmatch(argument)
        key = match["key"] if match else f"={len(kept)}"  # no key begins with "="
        before, now = kept.pop(key, argument).partition("=")[2], argument.partition("=")[2]
        if before != now:
            log.warning("note: %s is given as %s and again as %s: the last one counts", key, short(before), short(now))
        kept[key] = argument
    return [*kept.values()]


def read(argument: str) -> ParsedOverride:
    """Parse an argument as an override. Raises ConfigError if it isn't one."""
    match = OVERRIDE.fullmatch(spelled_out(argument))
    if match is None and argument.startswith("~"):
        refuse(argument, "keys can't be removed from a config, give key=value")
    if match is None and re.fullmatch(KEY, argument, re.ASCII):
        refuse(argument, "a key needs a value, give key=value")
    if match is None:
        refuse("", f"{show(argument)} is not key=value, such as model.width=8 or model.layers.0.conv2d.kernel_size=5")
    key, text = match["key"], match["value"]
    try:
        return ParsedOverride(key, text, OverridesParser.create().parse_override(f"{key}={for_hydra(key, text)}"))
    except RecursionError:
        refuse(key, f"{show(text)} can't be read: lists are nested too deeply")
    except (HydraException, ValueError) as error:
        reason = str(error).partition(" while evaluating ")[2].partition("': ")[2]
        if not reason:
            reason = f"check brackets and quotes, and quote text with special characters, {key}='\"...\"'"
        refuse(key, f"{show(text)} can't be read: {' '.join(reason.split())}")


def for_hydra(key: str, text: str) -> str:
    """A value in Hydra's grammar. Paths and names are taken literally, with spaces, `=` and all alphabets."""
    if key == "extensions":
        return IN_HOME.sub(r'"\g<0>"', text)
    if key not in LITERAL or text in ("", "null") or text[0] in "\"'$":
        return text
    return quoted(text, also="" if key in NEW_DIRECTORIES else ",")


def quoted(text: str, also: str = "") -> str:
    """A text, quoted if Hydra's grammar requires it. The characters in `also` need no quotes."""
    plain = re.fullmatch(rf"[\w./{also}-]*", text, re.ASCII) and not OTHER_THAN_TEXT.fullmatch(text)
    return text if plain else '"' + text.replace('"', '\\"') + '"'


def refuse(place: str, problem: str) -> NoReturn:
    raise ConfigError([Fault(place, problem)])

"""`-m resume=SWEEP`: the arguments of an earlier start of a sweep, which this start goes on with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from cnn.faults import ConfigError, Fault
from runners.errors import RunDirectoryError, shell_argument
from runners.files.paths import user_path
from runners.sweeps import directory, record

RESUME = re.compile(r"\+{0,2}resume=(?P<sweep>.*)", re.DOTALL)
KEY = re.compile(r"\+{0,2}(?P<key>[\w./]+)=")
SETTINGS = re.compile(
    r"jobs|retry|stop_on_failure|extensions|hydra/launcher|hydra\.launcher\.[\w.]+|hydra\.sweeper\.n_trials"
)
"""What can be given with `resume=SWEEP`: how its jobs run, not what they are."""
FLAGS = ("-m", "--multirun")
CONFIG_FOLDER = re.compile(r"(--config-dir|-cd)(=.*)?", re.DOTALL)
PLAIN = re.compile(r"[\w.+]+=[\w.:-]*")
"""A setting with a plain value."""
SHOWING = re.compile(r"-h|--help|-c|--cfg(=.*)?")


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether arguments ask for a sweep, and not only to show something."""
    return any(text in FLAGS for text in arguments) and not any(map(SHOWING.fullmatch, arguments))


def resumed(arguments: Sequence[str], outputs: Path) -> list[str]:
    """The whole command of a sweep that `resume=SWEEP` names, or `resume=auto`; other arguments as they are.

    Raises ConfigError for arguments that would change its jobs, and RunDirectoryError if there is no such sweep.
    """
    matches = [match for argument in arguments if (match := RESUME.fullmatch(argument))]
    if not matches:
        return list(arguments)
    path = _latest(outputs) if matches[-1]["sweep"] == "auto" else user_path(matches[-1]["sweep"])
    last = record.read(path).last
    given = [text for text in arguments if not RESUME.fullmatch(text) and text not in FLAGS]
    flags, given = _config_folder(given)
    unknown = flags if not _config_folder(last.arguments)[0] else []
    faults = [*_changing([*unknown[:1], *given], path), *_missing(last.arguments, [*flags, *given]), *_elsewhere(last)]
    if faults:
        raise ConfigError(faults)
    keys = {_key(text) for text in given}
    left_out = r"sweep_dir" + (r"|hydra\.launcher\..*" if "hydra/launcher" in keys else "")  # another's settings
    saved = _config_folder(last.arguments)[1]
    kept = {_key(text): text for text in saved if not re.fullmatch(left_out, _key(text))}
    kept |= {_key(text): text for text in given}
    return [*flags, *kept.values(), f"sweep_dir={path}"]


def _config_folder(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """`--config-dir FOLDER`, if it is given, and the other arguments."""
    rest = list(arguments)
    for place, text in enumerate(rest):
        if CONFIG_FOLDER.fullmatch(text):
            count = 1 if "=" in text else 2
            return rest[place : place + count], [*rest[:place], *rest[place + count :]]
    return [], rest


def _changing(given: Sequence[str], path: Path) -> Iterator[Fault]:
    """A fault for each argument that says what jobs are."""
    whole = " ".join(["give the whole command with", shell_argument("sweep_dir", path)])
    for text in given:
        if not SETTINGS.fullmatch(_key(text)):
            problem = f"can't be changed with resume=SWEEP, which has its jobs in sweep.yaml; {whole}"
            yield Fault(_key(text), problem)


def _missing(saved: Sequence[str], given: Sequence[str]) -> Iterator[Fault]:
    """A fault for each saved argument that could run somebody else's code, and that isn't given again."""
    keys = {_key(text) for text in given}
    folder, rest = _config_folder(saved)
    if folder and not _config_folder(given)[0]:
        problem = "this sweep uses configs of this folder, which are only read if it is given again"
        yield Fault("--config-dir", f"{problem}: add {shlex.join(folder)}")
    for text in rest:
        key = _key(text)
        if key == "extensions" and key not in keys:
            problem = "this sweep uses files of its own, which are only imported if they are given again"
            yield Fault(key, f"{problem}: add {shlex.quote(text.lstrip('+'))}")
        elif key.startswith("hydra.launcher.") and key not in keys and not PLAIN.fullmatch(text):
            problem = "this may run commands, so it is only used if it is given again"
            if "hydra/launcher" not in keys:
                yield Fault(key, f"{problem}: add {shlex.quote(text.lstrip('+'))}")


def _elsewhere(start: record.Start) -> Iterator[Fault]:
    """A fault if relative paths of the command would mean other files here."""
    folder = Path(start.folder)
    if folder.is_dir() and not folder.samefile(Path.cwd()):
        yield Fault("resume", f"this sweep was started in {folder}, where its relative paths lead: resume it there")


def _key(argument: str) -> str:
    match = KEY.match(argument)
    return match["key"] if match else argument


def _latest(outputs: Path) -> Path:
    found = directory.unfinished(None, outputs)
    if found is None:
        raise RunDirectoryError(f"resume: there is no unfinished sweep in {outputs}, give resume=SWEEP")
    return found

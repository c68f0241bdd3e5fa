"""`-m resume=SWEEP`: the arguments of an earlier start of a sweep, which this start goes on with."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
    saved = record.read(path).last.arguments
    given = [text for text in arguments if not RESUME.fullmatch(text) and text not in FLAGS]
    whole = " ".join(["give the whole command with", shell_argument("sweep_dir", path)])
    faults = [
        Fault(_key(text), f"can't be changed with resume=SWEEP, which has its jobs in sweep.yaml; {whole}")
        for text in given
        if not SETTINGS.fullmatch(_key(text))
    ]
    keys = {_key(text) for text in given}
    files = [text for text in saved if _key(text) == "extensions"]
    if files and "extensions" not in keys:
        problem = "this sweep uses files of its own, which are only imported if they are given again"
        faults.append(Fault("extensions", f"{problem}: add {files[-1].lstrip('+')}"))
    if faults:
        raise ConfigError(faults)
    left_out = r"sweep_dir" + (r"|hydra\.launcher\..*" if "hydra/launcher" in keys else "")  # another's settings
    kept = {_key(text): text for text in saved if not re.fullmatch(left_out, _key(text))}
    kept |= {_key(text): text for text in given}  # in the old order, which is that of the jobs' overrides
    return [*kept.values(), f"sweep_dir={path}"]


def _key(argument: str) -> str:
    match = KEY.match(argument)
    return match["key"] if match else argument


def _latest(outputs: Path) -> Path:
    found = directory.unfinished(None, outputs)
    if found is None:
        raise RunDirectoryError(f"resume: there is no unfinished sweep in {outputs}, give resume=SWEEP")
    return found

"""How a command ends: errors become messages and exit codes, without a traceback where somebody knows better."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from cnn import ConfigError, ops
from runners.errors import DebugFailed, InputError, RunFailed, printable, typed_path
from runners.signals import Interrupted, ask_on_signals

DONE, FAILED, BAD_INPUT = 0, 1, 2
COMPILING = "compiling kernels for this machine's processor: seconds, and only once"


def conclude(error: BaseException, place: str = "") -> int:
    """Say what went wrong and give the exit code for it; of a fault that nobody foresaw, show the traceback.

    `place` stands before each line: which job of a sweep it is about.
    """
    if isinstance(error, ConfigError | InputError | RunFailed):
        lines = str(error).split("\n")
        print("\n".join(f"error: {place}{printable(line)}" for line in lines), file=sys.stderr)
        return FAILED if isinstance(error, RunFailed) else BAD_INPUT
    if isinstance(error, DebugFailed):
        print(error)
        return FAILED
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted(signal.SIGINT)
    if isinstance(error, Interrupted):
        how = f"; python run.py {typed_path('resume', error.run)} goes on" if error.run else ""
        how = f"; the run is done, {error.done / 'summary.json'} tells how" if error.done else how
        print(f"interrupted by {error.name}{how}", file=sys.stderr)
        return error.exit_code
    traceback.print_exception(error)
    return FAILED


def guarded(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """The command's exit code; 1 where nobody reads what it prints, a signal's, all without a traceback."""
    ask_on_signals()
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this: the next file opened would stand in its place
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: names may not fit the terminal's encoding
    if sys.stderr.isatty():
        ops.before_compiling(lambda: tqdm.write(COMPILING, file=sys.stderr))
    try:
        exit_code = command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Interrupted as interruption:
        return interruption.exit_code
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO) or error.filename:
            raise
        if error.errno == errno.ENOSPC:
            print(f"error: what was to be printed can't be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return FAILED
    return exit_code

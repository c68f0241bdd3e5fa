"""How a command ends: errors become messages and exit codes. Only unexpected errors show a traceback."""

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

from cnn.faults import ConfigError
from runners.errors import DebugFailed, InputError, RunFailed, printable
from runners.signals import Interrupted, raise_on_sigint

DONE, FAILED, BAD_INPUT = 0, 1, 2
COMPILING_MESSAGE = "compiling kernels for this machine's processor; this takes a few seconds, once"


def report_error(error: BaseException, place: str = "") -> int:
    """Print what went wrong and return the exit code; an unexpected error prints its traceback.

    `place` is a prefix for each line, such as the job of a sweep.
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
        how = f"; continue with {error.resume}" if error.resume else ""
        how = f"; the run is done, see {error.done / 'summary.json'}" if error.done else how
        print(f"interrupted by {error.name}{how}", file=sys.stderr)
        return error.exit_code
    traceback.print_exception(error)
    return FAILED


def guarded(command: Callable[[Sequence[str]], int], arguments: Sequence[str], *, computes: bool = True) -> int:
    """Run a command and return its exit code: 1 if its output can't be written, 128 + n after signal n.

    `computes`: whether it may compile kernels, which is announced.
    """
    raise_on_sigint()
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent: the next file to be opened would take its place
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: the terminal may lack a character
    if computes and sys.stderr.isatty():
        from cnn import ops  # here, as a command that computes nothing starts without torch

        ops.before_compiling(lambda: tqdm.write(COMPILING_MESSAGE, file=sys.stderr))
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
            print(f"error: the output can't be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more as it exits
        return FAILED
    return exit_code

"""Commands in processes that are forked from one that has loaded everything.

They are real processes, with exit codes, signals and streams of their own. Only the interpreter's start and the imports
are missing, which take seconds: tests of those start `sys.executable`.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, reduction
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from runners.signals import LIFELINE

ROOT = Path(__file__).parents[1]
LOADED = [
    __name__,
    *(f"runners.cli.{command}" for command in ("train", "sweep", "predict", "evaluate")),
    *("runners.tasks.figures", "benchmarks.sides", "tools.faults.contents", "tests.warm"),
]


@functools.cache
def context() -> ForkServerContext:
    """multiprocessing's fork server, of which a process has one."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(LOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # where the server looks for what it loads
        forkserver.ensure_running()
    return found


class Forked:
    """A command `[sys.executable, SCRIPT, ...]` or `[sys.executable, "-m", MODULE, ...]`, as subprocess.Popen has it.

    stdin: a descriptor that it reads from. stdout, stderr: descriptors that it prints to, by default files that
    `communicate` reads. closed: the streams, 0 to 2, that it finds closed. environment: variables to set.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        closed: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        given = {0: stdin, 1: stdout, 2: stderr}
        self._printed = {number: tempfile.TemporaryFile() for number in (1, 2) if given[number] is None}  # noqa: SIM115
        given |= {number: file.fileno() for number, file in self._printed.items()}
        streams = {number: _Inherited(stream) for number, stream in given.items() if stream is not None}
        arguments = (command[1:], str(folder), streams, closed, environment or {})
        self._process = context().Process(target=_execute, args=arguments)
        self._process.start()

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """The exit code, once it has ended."""
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        return code

    def communicate(self) -> tuple[str, str]:
        """Wait for its end; what it has printed on stdout and stderr."""
        self.wait()
        out, err = (os.pread(file.fileno(), 1 << 20, 0).decode() for file in self._printed.values())
        return out, err

    def send_signal(self, number: int) -> None:
        assert self._process.pid
        os.kill(self._process.pid, number)

    def end(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.join()
        self._process.close()
        for file in self._printed.values():
            file.close()


class ForkedJob:
    """What of subprocess.Popen a sweep uses for the process of a job, forked."""

    def __init__(self, command: Sequence[str], folder: Path, output: int) -> None:
        reader, writer = os.pipe()
        self._process = Forked(
            command, folder, stdin=reader, stdout=output, stderr=output, environment={**os.environ, LIFELINE: "stdin"}
        )
        os.close(reader)
        self.stdin = os.fdopen(writer, "wb")

    def poll(self) -> int | None:
        return self._process.poll()


class _Inherited:
    """A descriptor that a forked process gets a duplicate of."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> Any:
        return reduction.DupFd(self.number)

    def __setstate__(self, duplicate: Any) -> None:
        self.number = duplicate.detach()


def _execute(
    command: Sequence[str],
    folder: str,
    streams: Mapping[int, _Inherited],
    closed: Sequence[int],
    environment: Mapping[str, str],
) -> None:
    """In the forked process: what the interpreter does with a command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    os.setsid()
    os.environ.update(environment)
    os.chdir(folder)
    for number, inherited in streams.items():
        os.dup2(inherited.number, number)
        os.close(inherited.number)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    for number in closed:
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)
    if command[0] == "-m":
        sys.argv[:] = command[1:]
        sys.path.insert(0, str(ROOT))
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = command
        sys.path.insert(0, str(Path(command[0]).parent))
        runpy.run_path(command[0], run_name="__main__")

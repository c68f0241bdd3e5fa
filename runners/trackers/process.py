"""The process of a tracker, seen from the one that trains, which never waits for it before the run has ended.

A library in a process of its own can't end a run, stop or slow it, take its signals, print on its terminal or change
its random numbers; and copies of the training process, which compile kernels, don't inherit the library's threads.
"""

from __future__ import annotations

import inspect
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from runners.trackers.tracker import Tracker

CLOSE_SECONDS = 60.0
"""How long a tracker may take for the rest of its work once the run has ended."""
HURRIED_SECONDS = 10.0
"""The same if a signal has asked the run to end."""
POLL_SECONDS = 0.1

PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from runners.trackers import worker; worker.main()"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
"""Variables that keep libraries from reporting to their makers."""


@dataclass(frozen=True)
class Failure:
    """Why a tracker stopped working: in one line, and the traceback if there is one."""

    reason: str
    traceback: str = ""


def command() -> list[str]:
    """The command that starts a worker which finds the same modules as this process."""
    return [sys.executable, "-c", PROGRAM, json.dumps(sys.path)]


class TrackerProcess:
    """Sends requests to a worker, without blocking, and notices when it fails."""

    def __init__(self, tracker: Tracker, arguments: Mapping[str, Any]) -> None:
        self.failure: Failure | None = None
        self._closed = False
        self._unsent = b""
        self._answer = b""
        self._process = subprocess.Popen(
            command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **QUIET},
            start_new_session=True,  # Ctrl-C is for the run, which then closes its trackers
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        os.set_blocking(self._input.fileno(), False)
        os.set_blocking(self._output.fileno(), False)
        kind = type(tracker)
        place = {"module": kind.__module__, "file": inspect.getfile(kind), "class": kind.__name__}
        self.send({**place, "arguments": dict(arguments)})

    def send(self, request: Mapping[str, Any]) -> None:
        """Pass a request on, now or as soon as the worker has taken the earlier ones."""
        if not self._closed and self.failure is None:
            self._unsent += json.dumps(request).encode() + b"\n"
            self.poll()

    def poll(self) -> None:
        """Write and read whatever is possible without waiting."""
        if self._closed or self.failure is not None:
            return
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._input.fileno(), self._unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent = b""  # the answer, or the end of the process, says why
        with suppress(BlockingIOError):
            while received := os.read(self._output.fileno(), 1 << 16):
                self._answer += received
            self._ended()

    def close(self, is_hurried: Callable[[], bool]) -> None:
        """Wait for the worker, which was asked to close. One that takes too long is killed."""
        start = time.monotonic()
        hurried: float | None = None
        while not self._closed and self.failure is None:
            waiting = [self._input] if self._unsent else []
            select.select([self._output], waiting, [], POLL_SECONDS)
            self.poll()
            now = time.monotonic()
            if hurried is None and is_hurried():
                hurried = now
            if now > min(start + CLOSE_SECONDS, (hurried or now) + HURRIED_SECONDS):
                seconds = HURRIED_SECONDS if hurried else CLOSE_SECONDS
                self._fail(f"not finished {seconds:g} seconds after the end of the run")

    def _ended(self) -> None:
        """The worker has closed its output, so it has ended."""
        try:
            answer = json.loads(self._answer)
        except ValueError:
            answer = {}
        if answer.get("closed"):
            self._closed = True
            self._stop()
        elif "failed" in answer:
            self._fail(answer["failed"], answer["traceback"])
        else:
            self._stop()
            code = self._process.returncode
            self._fail(f"its process ended with {f'exit code {code}' if code >= 0 else signal.Signals(-code).name}")

    def _fail(self, reason: str, traceback: str = "") -> None:
        self.failure = Failure(reason, traceback)
        self._stop()

    def _stop(self) -> None:
        """Release the worker's resources, with processes that a library has started and left."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(POLL_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._input, self._output):
            with suppress(OSError):
                pipe.close()

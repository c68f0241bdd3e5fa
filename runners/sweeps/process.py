"""A job's process: `python -m runners.train ... run_dir=SWEEP/NUMBER`, or `resume=SWEEP/NUMBER`."""

from __future__ import annotations

import os
import shutil
import signal
import site
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from runners.signals import LIFELINE
from runners.sweeps.job import Job

ROOT = Path(__file__).parents[2]
"""The folder of the code that is running, which a job runs as well."""

Process = subprocess.Popen[bytes]


class JobProcess:
    """The process of a job from its start to its end.

    It is in a session of its own, so that an interrupt from the terminal reaches it only through this process, once.
    If this process ends, however it ends, the job is interrupted: see `signals.end_with_parent`.
    """

    def __init__(self, job: Job, arguments: Sequence[str], folder: Path) -> None:
        self.job = job
        self._output = job.output if job.path.exists() else job.early_output
        with self._output.open("ab") as stream:
            self._begin = stream.tell()
            self._process = start([sys.executable, "-m", "runners.train", *arguments], folder, stream.fileno())
        self._is_ending = False

    def poll(self) -> int | None:
        """The exit code, negative if a signal has killed it; None while it runs."""
        return self._process.poll()

    def end(self, number: int) -> None:
        """Let it end as with a signal. It saves its state first."""
        if not self._is_ending:
            self._is_ending = True
            assert self._process.stdin
            with suppress(OSError):  # it has ended
                self._process.stdin.write(bytes([number]))
                self._process.stdin.flush()

    def close(self) -> str:
        """After its end: move its output to the job's directory, if it has one; returns what it has printed."""
        assert self._process.stdin
        with suppress(OSError):
            self._process.stdin.close()
        with self._output.open("rb") as stream:
            stream.seek(self._begin)
            text = stream.read().decode(errors="backslashreplace")
        settle_output(self.job)
        return text


def start(command: Sequence[str], folder: Path, output: int) -> Process:
    """Start a process that prints to a file, and whose standard input tells it to end."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **importing(), LIFELINE: "stdin"},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def importing() -> dict[str, str]:
    """The variables with which Python imports this code, and nothing that happens to be in the working directory."""
    variables = {"PYTHONSAFEPATH": "1"}
    if str(ROOT) not in site.getsitepackages():
        given = os.environ.get("PYTHONPATH")
        variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([given] if given else [])])
    return variables


def settle_output(job: Job) -> None:
    """Move what a job has printed before it had a directory to that directory."""
    if not job.early_output.exists() or not job.path.is_dir():
        return
    if job.output.exists():
        with job.output.open("ab") as whole, job.early_output.open("rb") as piece:
            shutil.copyfileobj(piece, whole)
        job.early_output.unlink()
    else:
        job.early_output.replace(job.output)


def signal_name(code: int) -> str:
    """The name of the signal that has killed a process with this exit code."""
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"

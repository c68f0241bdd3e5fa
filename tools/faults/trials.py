"""Real processes of run.py that are killed, or whose disk fails, at chosen moments.

A server process imports everything once and forks a child for each trial, which takes some hundredths of a second and
not seconds: `python -m tools.faults.trials` is that server. In a child, every step by which files under the working
directory change (open, write, fsync, rename, remove, mkdir) counts, and at one of them it is killed, or from it on the
disk is full, or read-only. Or the system lets no file grow beyond a size.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FAULTS = {"full": errno.ENOSPC, "read-only": errno.EROFS}
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, negative for a signal, what it printed, what it had saved, such as `last 8`."""

    code: int
    out: str
    err: str
    saved: list[str]
    changes: list[str]
    """The changes of files that it made, one after the other."""


class Server:
    """Forks children that run run.py's command."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.faults.trials"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin
        self.process.communicate()

    def run(
        self, folder: Path, arguments: Sequence[str], *, fault: str = "", at: int = 0, after: float | None = None
    ) -> Ended:
        """How a child ends.

        `fault`: kill, full or read-only, at the change of files of number `at`, from 1; or
        limit, and no file grows beyond `at` bytes. `after`: seconds after which it is killed.
        """
        assert self.process.stdin
        assert self.process.stdout
        for name in ("told", "out", "err"):  # it may be killed before it makes them
            (folder / name).write_text("")
        job = {"folder": str(folder), "arguments": list(arguments), "fault": fault, "at": at}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if after is not None:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)  # a zombie, if it has ended: the server waits for a line before it reaps it
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        told = (folder / "told").read_text().splitlines()
        saved = [line for line in told if not line.startswith("#")]
        out, err = ((folder / name).read_text() for name in ("out", "err"))
        return Ended(code, out, err, saved, [line[2:] for line in told if line.startswith("#")])


def serve() -> None:
    from hydra._internal.hydra import Hydra

    from runners import exit_codes
    from runners.cli import train
    from runners.training import experiment
    from tools.small_runs import given_mode, warm_up

    experiment._draw = lambda *arguments: None  # half a second for each trial; a run is done with or without pictures
    Hydra.get_mode = given_mode  # type: ignore[assignment, method-assign] # a tenth of a second
    warm_up()
    for line in sys.stdin:
        if not line.strip():
            continue
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(partial(exit_codes.guarded, train.main), job)
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _child(train: Callable[[list[str]], int], job: dict[str, Any]) -> None:
    """Run the command and end the process."""
    code = 99
    try:
        os.chdir(job["folder"])
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        told = os.open("told", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        _tell_saves(told)
        if job["fault"] == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["at"], resource.RLIM_INFINITY))
        _Faulty(told, Path.cwd(), job["fault"], job["at"]).install()
        code = train(job["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _tell_saves(told: int) -> None:
    """Each checkpoint that is saved leaves a line, once it is."""
    from runners.files import checkpoint
    from runners.files.content import Checkpoint

    save = checkpoint.save

    def saved(file: Path, content: Checkpoint) -> None:
        save(file, content)
        os.write(told, f"{file.stem} {content.step}\n".encode())

    checkpoint.save = saved


class _Faulty:
    """Counts the changes of files under a folder and breaks them from a given one on."""

    def __init__(self, told: int, folder: Path, fault: str, at: int) -> None:
        self.told, self.folder, self.fault, self.at = told, str(folder), fault, at
        self.count = 0
        self.counting = threading.get_ident()

    def install(self) -> None:
        sync = os.fsync

        def fsync(file: Any) -> None:
            status = os.fstat(file)
            if self.fault and self.count + 1 == self.at and stat.S_ISREG(status.st_mode):
                os.ftruncate(file, status.st_size // 2)  # what was written is half there
            self.change("fsync")
            sync(file)

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(self.watch)

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if threading.get_ident() != self.counting:
            return
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str | os.PathLike) and self.concerns(os.fspath(path)):
                self.change(f"open {path}")
        elif event in CHANGES and self.concerns(os.fspath(arguments[0])):
            self.change(f"{event} {arguments[0]}", frees=event in ("os.rename", "os.remove", "os.rmdir"))

    def concerns(self, path: str) -> bool:
        return os.path.abspath(path).startswith(self.folder)  # noqa: PTH100 - an audit hook's path may be of any kind

    def change(self, what: str, frees: bool = False) -> None:
        self.count += 1
        os.write(self.told, f"# {what}\n".encode())
        if self.fault == "kill" and self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault in FAULTS and self.count >= self.at and not (frees and self.fault == "full"):
            number = FAULTS[self.fault]
            raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    serve()

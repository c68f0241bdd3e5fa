"""Trackers as a user may write them: one keeps notes, the other one fails in every way that libraries do."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runners.trackers.tracker import About, Tracker


class Notes(Tracker):
    """Writes down all that it is given, in a file in the run directory."""

    kind = "notes"

    def __init__(self, file: str = "notes.jsonl") -> None:
        if not file.endswith(".jsonl"):
            raise ValueError(f"{file} has to end in .jsonl")
        self.file = file

    def start(self, run: About, rows: Sequence[Mapping[str, float]]) -> None:
        self.path = Path(run.directory, self.file)
        self.note("start", asdict(run), rows)

    def epoch(self, row: Mapping[str, float]) -> None:
        self.note("epoch", row)

    def finish(self, summary: Mapping[str, float], figures: Sequence[Path]) -> None:
        self.note("finish", summary, [str(file) for file in figures])

    def close(self, state: str) -> None:
        self.note("close", state)

    def note(self, *what: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(what) + "\n")


def full_disk() -> None:
    with Path("/dev/full").open("w") as file:
        file.write("a value")


def wait() -> None:
    time.sleep(1000)


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def annoy() -> None:
    """What a library shouldn't do, but it works."""
    print("I am a library")
    print("and have a warning", file=sys.stderr)
    os.write(2, b"at the lowest level\n")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    atexit.register(wait)
    threading.Thread(target=wait).start()
    assert sys.stdin.read() == ""


def two_lines() -> None:
    raise RuntimeError("the first line\nthe second line\x1b[31m")


WAYS = {
    "full disk": full_disk,
    "exit": lambda: sys.exit("no license"),
    "hard exit": lambda: os._exit(3),
    "interrupt": lambda: signal.raise_signal(signal.SIGINT),
    "die": die,
    "wait": wait,
    "annoy": annoy,
    "two lines": two_lines,
}


class Broken(Tracker):
    kind = "broken"

    def __init__(self, when: str = "start", how: str = "full disk") -> None:
        self.when = when
        self.how = how

    def reach(self, when: str) -> None:
        if when == self.when:
            WAYS[self.how]()

    def start(self, run: About, rows: Sequence[Mapping[str, float]]) -> None:
        self.reach("start")

    def epoch(self, row: Mapping[str, float]) -> None:
        self.reach("epoch")

    def finish(self, summary: Mapping[str, float], figures: Sequence[Path]) -> None:
        self.reach("finish")

    def close(self, state: str) -> None:
        self.reach("close")

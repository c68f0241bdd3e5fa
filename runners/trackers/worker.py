"""The process of one tracker. It reads requests from its standard input, a line of JSON each, and answers once.

The answer is `closed`, or `failed` with a reason and a traceback. Whatever the library prints is dropped.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import queue
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from runners.trackers.tracker import About, Tracker

ORPHAN_SECONDS = 60
"""How long a tracker may take to close after the process that trains has died."""


def main() -> None:
    """Work until a request to close, the end of the input, or a failure; then end without the library's own hooks."""
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    _silence()
    try:
        _work(_received(requests))
        answer: dict[str, Any] = {"closed": True}
    except BaseException as error:  # SystemExit as well: libraries end their process
        answer = {"failed": _reason(error), "traceback": traceback.format_exc()}
    try:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    finally:
        os._exit(0)  # threads and exit hooks of a library may wait forever


def _silence() -> None:
    """Connect the standard streams to nothing: a library can neither ask nor print."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _received(requests: IO[str]) -> queue.SimpleQueue[str]:
    """The requests as they come in, and an empty one at the end of the input."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in requests:
            lines.put(line)
        lines.put("")
        threading.Timer(ORPHAN_SECONDS, os._exit, [1]).start()

    threading.Thread(target=read, daemon=True).start()
    return lines


def _work(lines: queue.SimpleQueue[str]) -> None:
    first = lines.get()
    if not first:
        return
    tracker = _made(json.loads(first))
    while True:
        line = lines.get()
        request: Any = json.loads(line) if line else {"do": "close", "state": "interrupted"}
        if request["do"] == "start":
            tracker.start(About(**request["run"]), request["rows"])
        elif request["do"] == "epoch":
            tracker.epoch(request["row"])
        elif request["do"] == "finish":
            tracker.finish(request["summary"], [Path(file) for file in request["figures"]])
        else:
            tracker.close(request["state"])
            return


def _made(request: Mapping[str, Any]) -> Tracker:
    """The tracker of a class in a module of this project, or in a file of the user's own."""
    if request["module"].startswith("runners."):
        module = importlib.import_module(request["module"])
    else:
        specification = importlib.util.spec_from_file_location(request["module"], request["file"])
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    tracker: Tracker = getattr(module, request["class"])(**request["arguments"])
    return tracker


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

"""SIGINT and SIGTERM end a run in good order: the step is finished and the state saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal asked the run to end; `exit_code` is what shells expect: 128 plus the signal's number."""

    def __init__(self, signal_number: int) -> None:
        self.name = signal.Signals(signal_number).name
        self.exit_code = 128 + signal_number
        super().__init__(self.name)


class SignalWatch:
    """Remembers the first signal; a second one of its kind does what it does by default."""

    def __init__(self) -> None:
        self.received: int | None = None

    def remember(self, signal_number: int, frame: FrameType | None) -> None:
        self.received = signal_number
        signal.signal(signal_number, signal.SIG_DFL)

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)


@contextmanager
def watch_signals() -> Iterator[SignalWatch]:
    """Watch both signals for the length of a `with` block; only the main thread of a process can."""
    watch = SignalWatch()
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    before = {number: signal.signal(number, watch.remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

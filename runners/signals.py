"""SIGINT, SIGTERM and SIGHUP end a run in good order: the step is finished and the state saved; before, at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN = 0.05
"""Seconds after which a signal is raised once more."""
PATIENCE = b"\nfinishing this step, then saving; once more leaves at once\n"


class Interrupted(BaseException):
    """A signal asked the run to end; `exit_code` is what shells expect: 128 plus the signal's number."""

    def __init__(self, signal_number: int) -> None:
        self.name = signal.Signals(signal_number).name
        self.exit_code = 128 + signal_number
        self.run: Path | None = None
        """The run that was stopped and can be resumed."""
        self.done: Path | None = None
        """The run that was done all the same."""
        super().__init__(self.name)


class SignalWatch:
    """Remembers the first signal; a second one of its kind does what it does by default."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._begun = False
        """Whether something is done that is worth finishing."""
        self._at_once = False

    def remember(self, signal_number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal_number
        if self._at_once:
            self.check()
        signal.signal(signal_number, signal.SIG_DFL)
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), PATIENCE)

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    @contextmanager
    def leaving_before_anything_is_done(self) -> Iterator[None]:
        """In the first of these blocks that is passed, a signal raises Interrupted where it arrives.

        Where that is a callback from compiled code it gets lost, and is raised once more.
        """
        if self._begun or threading.current_thread() is not threading.main_thread():
            yield
            return
        hook, alarm = sys.unraisablehook, signal.signal(signal.SIGALRM, lambda number, frame: self.check())

        def again(lost: Any) -> None:
            if isinstance(lost.exc_value, Interrupted):
                signal.setitimer(signal.ITIMER_REAL, AGAIN)
            else:
                hook(lost)

        sys.unraisablehook = again
        self._at_once = True
        try:
            self.check()
            yield
            self._begun = True
        finally:
            self._at_once = False
            sys.unraisablehook = hook
            signal.signal(signal.SIGALRM, alarm)


@contextmanager
def watch_signals() -> Iterator[SignalWatch]:
    """Watch these signals for the length of a `with` block, unless the process was started to ignore one of them.

    Only the main thread of a process can.
    """
    watch = SignalWatch()
    with _handled_by(watch.remember):
        yield watch


@contextmanager
def raising_signals() -> Iterator[None]:
    """Let a signal raise Interrupted at once, for a `with` block that may take long and has nothing to be saved."""

    def end(signal_number: int, frame: FrameType | None) -> None:
        raise Interrupted(signal_number)

    with _handled_by(end):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in WATCHED if not _is_ignored(number)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def leave_on_signals() -> None:
    """While there is nothing to save or to say, these signals end the process at once, with their exit codes."""
    for number in WATCHED:
        if not _is_ignored(number):
            signal.signal(number, lambda number, frame: os._exit(128 + number))


def ask_on_signals() -> None:
    """SIGINT is a KeyboardInterrupt again, which lets files be closed and messages be written."""
    if threading.current_thread() is threading.main_thread() and not _is_ignored(signal.SIGINT):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_ignored(number: int) -> bool:
    """As shells start what runs in the background."""
    return signal.getsignal(number) is signal.SIG_IGN

"""SIGINT, SIGTERM and SIGHUP end a run cleanly: it finishes its step and saves its state.

Before the first step there is nothing to save, and a run ends immediately.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RETRY_DELAY = 0.05
"""Seconds until a lost signal is raised again."""
LIFELINE = "CNN_LIFELINE"
"""The environment variable with which a process asks the one that it starts to call `end_with_parent`."""
SECONDS_TO_SAVE = 120.0
"""What a process has for its last step and its checkpoint after the process that started it has ended."""
STOPPING_MESSAGE = b"\nfinishing this step, then saving; interrupt again to quit immediately\n"


class Interrupted(BaseException):
    """A signal asked the run to end; `exit_code` is what shells expect: 128 plus the signal's number."""

    def __init__(self, signal_number: int) -> None:
        self.name = signal.Signals(signal_number).name
        self.exit_code = 128 + signal_number
        self.resume: str | None = None
        """The command that resumes the run that was stopped."""
        self.done: Path | None = None
        """The run that finished before it could be stopped."""
        super().__init__(self.name)
        self._number = signal_number

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:
        """A launcher may pass it on from another process."""
        return Interrupted, (self._number,)


class SignalWatch:
    """Remembers the first signal; a second signal of the same kind has its default effect."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._has_work = False
        """Whether there is work that is worth saving."""
        self._immediate = False

    def remember(self, signal_number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal_number
        if self._immediate:
            self._check_soon()
        signal.signal(signal_number, signal.SIG_DFL)
        if sys.stderr.isatty() and not self._immediate:
            os.write(sys.stderr.fileno(), STOPPING_MESSAGE)

    def _check_soon(self) -> None:
        """Raise Interrupted if a signal has been received, unless a kernel is being compiled: then once it is."""
        from cnn.ops import compiling  # whoever takes a step has imported it

        compiling.unless_compiling(self.check)

    def check(self) -> None:
        """Raise Interrupted if a signal has been received."""
        if self.received is not None:
            raise Interrupted(self.received)

    @contextmanager
    def interruptible_until_done(self) -> Iterator[None]:
        """Let a signal raise Interrupted immediately, until one of these blocks has completed.

        While a kernel is compiled, the signal waits for its end: a compiler that is interrupted leaves half of it. An
        exception that is raised in a callback from compiled code is lost; it is raised again shortly after.
        """
        if self._has_work or threading.current_thread() is not threading.main_thread():
            yield
            return
        hook, alarm = sys.unraisablehook, signal.signal(signal.SIGALRM, lambda number, frame: self._check_soon())

        def retry(lost: Any) -> None:
            if isinstance(lost.exc_value, Interrupted):
                signal.setitimer(signal.ITIMER_REAL, RETRY_DELAY)
            else:
                hook(lost)

        sys.unraisablehook = retry
        self._immediate = True
        try:
            self.check()
            yield
            self._has_work = True
        except Exception:
            self.check()  # what was interrupted may fail in its own way
            raise
        finally:
            self._immediate = False
            sys.unraisablehook = hook
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)


@contextmanager
def watch_signals() -> Iterator[SignalWatch]:
    """Watch the signals inside a `with` block, except those that the process was started to ignore.

    Only the main thread can; in other threads this does nothing.
    """
    watch = SignalWatch()
    with _handled_by(watch.remember):
        yield watch


@contextmanager
def raising_signals(before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let a signal raise Interrupted immediately, inside a `with` block that may take long and has nothing to save.

    `before` is called first, for what others have to save; a second signal doesn't wait for it.
    """
    received: list[int] = []

    def end(signal_number: int, frame: FrameType | None) -> None:
        received.append(signal_number)
        if len(received) == 1:
            before()
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


def exit_on_signals() -> None:
    """Let the signals end the process immediately, with their exit codes: there is nothing to save or print yet."""
    for number in WATCHED:
        if not _is_ignored(number):
            signal.signal(number, lambda number, frame: os._exit(128 + number))


def end_with_parent() -> None:
    """Let a process that was started for a sweep end with the process that started it.

    Its standard input is a pipe. The other process writes the number of a signal to it: then this process sends itself
    that signal. The other one closes the pipe, however it ends: then this process sends itself SIGTERM if it hasn't got
    a signal yet, and is killed if it is still there after a while.
    """
    if os.environ.pop(LIFELINE, None):
        threading.Thread(target=_obey, daemon=True).start()


def _obey() -> None:
    number = os.read(0, 1)
    os.kill(os.getpid(), number[0] if number else signal.SIGTERM)
    while os.read(0, 1):
        pass
    time.sleep(SECONDS_TO_SAVE)
    os.kill(os.getpid(), signal.SIGKILL)


def raise_on_sigint() -> None:
    """Make SIGINT raise KeyboardInterrupt again, so that files are closed and messages are printed."""
    if threading.current_thread() is threading.main_thread() and not _is_ignored(signal.SIGINT):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_ignored(number: int) -> bool:
    """Shells start background jobs with SIGINT ignored."""
    return signal.getsignal(number) is signal.SIG_IGN

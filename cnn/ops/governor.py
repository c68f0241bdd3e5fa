"""As many threads as are faster at present, for work that is repeated.

Threads that share a loop wait for one another at its end. If another program takes one of their cores for a time slice,
all of them wait that long, in each of the dozens of loops of a step: next to a single busy process, two threads can be
four times slower than one. The number of threads changes no bit of a result, so it can follow the machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from statistics import fmean
from typing import TypeVar

from cnn.ops import threads

R = TypeVar("R")
log = logging.getLogger(__name__)

BLOCK, BLOCK_SECONDS = 8, 0.03
"""The least number of repetitions whose mean decides, and the least time that they take: several time slices."""

LONG_SECONDS = 0.5
"""Seconds after which fewer repetitions are enough."""

SETTLING = 0.005
"""Seconds after a change in which times don't count: threads that have slept or are new take a moment."""

SLOW = 1.25
"""A try with more threads ends early if it takes this many times as long as fewer threads do."""

MIN_PAUSE, MAX_PAUSE, MAX_PAUSE_STEPS = 0.25, 1.0, 60
"""Seconds between tries with more threads: after each that fails twice as many, up to a limit, which is longer for long
repetitions, of which a try takes a few."""

SETTLED = 0.9
"""Seconds after which another number of threads is worth a line in the log."""


class Governor:
    """Runs one kind of work with a number of threads that it chooses from the times that it takes.

    It starts with one thread and tries more, a level at a time, as long as they are faster. If a level becomes slower
    than the one below it was, it goes down, and tries again after a pause.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.levels = sorted({1, max(1, most // 4), max(1, most // 2), max(1, most - 1), most})
        self.level = 0
        self._clock = clock
        self._times: list[float] = []
        self._trying = False
        self._usual: dict[int, float] = {}  # by level: the mean of the last block
        self._pause = dict.fromkeys(range(len(self.levels)), MIN_PAUSE)  # before another try with a level
        self._retry = dict.fromkeys(range(len(self.levels)), 0.0)  # and when its time has come
        self._since, self._reported = clock(), most

    def __call__(self, work: Callable[[], R]) -> R:
        """The work's result."""
        threads.use(self.levels[self.level])
        start = self._clock()
        result = work()
        now = self._clock()
        self._note(now - start, now)
        return result

    def _note(self, seconds: float, now: float) -> None:
        if now - self._since < SETTLING:
            return
        self._times.append(seconds)
        below = self._usual.get(self.level - 1)
        if below is not None and self._trying and len(self._times) > 1 and fmean(self._times) > SLOW * below:
            self._lower(now)
        elif self._is_enough():
            usual = self._usual[self.level] = fmean(self._times)
            if below is not None and usual > below:
                self._lower(now)
            elif self.level + 1 < len(self.levels) and now >= self._retry[self.level + 1]:
                self._go(self.level + 1, now, trying=True)
            else:
                self._pause[self.level] = max(MIN_PAUSE, self._pause[self.level] / 2)
                self._times.clear()
                self._trying = False
        self._report(now)

    def _is_enough(self) -> bool:
        """Whether there are times enough for a mean: of long repetitions, two."""
        count, seconds = len(self._times), sum(self._times)
        return (count >= BLOCK and seconds >= BLOCK_SECONDS) or (count >= 2 and seconds >= LONG_SECONDS)

    def _lower(self, now: float) -> None:
        """Go down a level, for a while if it was but a try, and longer each time."""
        if self._trying:
            limit = max(MAX_PAUSE, MAX_PAUSE_STEPS * self._usual[self.level - 1])
            self._pause[self.level] = min(2 * self._pause[self.level], limit)
        self._retry[self.level] = now + self._pause[self.level]
        self._go(self.level - 1, now, trying=False)

    def _go(self, level: int, now: float, *, trying: bool) -> None:
        self._times.clear()
        self._trying = trying
        self.level = level
        self._since = now

    def _report(self, now: float) -> None:
        """Log the number of threads where it has changed for longer; tries are short."""
        count = self.levels[self.level]
        if count != self._reported and now - self._since > SETTLED and self.level in self._usual:
            times = ", ".join(
                f"{1000 * seconds:.1f} ms with {self.levels[level]}" for level, seconds in self._usual.items()
            )
            log.info("%d of %d threads: a step takes %s", count, self.levels[-1], times)
            self._reported = count

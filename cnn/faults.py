"""What is wrong with values that somebody gave: every mistake with its place, all of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cnn.text import printable, short

MAX_FAULTS = 100
"""Nobody reads more of them at once."""


@dataclass(frozen=True)
class Fault:
    """One mistake: where it stands, as one would type it on the command line, and what to do about it."""

    place: str
    problem: str

    def __str__(self) -> str:
        return printable(f"{short(self.place)}: {self.problem}" if self.place else self.problem)

    def inside(self, place: str) -> Fault:
        """The same fault seen from one level further out."""
        return Fault(join(place, self.place), self.problem)


class ConfigError(ValueError):
    """A config that can't be used: all of its faults."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(map(str, self.faults)))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[Fault]]]:
        return type(self), (self.faults,)  # BaseException would hand on the text, as if it were the faults

    def inside(self, place: str) -> ConfigError:
        return ConfigError(fault.inside(place) for fault in self.faults)


def join(*places: str) -> str:
    """Places put together with dots, empty ones left out."""
    return ".".join(place for place in places if place)

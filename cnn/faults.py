"""Faults of a config: every mistake with its place, all of them reported at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cnn.text import printable, short

MAX_FAULTS = 100
"""Of one config. Nobody reads more."""


@dataclass(frozen=True)
class Fault:
    """One mistake: its place, as one would type it on the command line, and what to do about it."""

    place: str
    problem: str

    def __str__(self) -> str:
        return printable(f"{short(self.place)}: {self.problem}" if self.place else self.problem)

    def inside(self, place: str) -> Fault:
        """The same fault, with its place relative to the next outer level."""
        return Fault(join(place, self.place), self.problem)


class ConfigError(ValueError):
    """The config can't be used. Lists all of its faults."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(map(str, self.faults)))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[Fault]]]:
        return type(self), (self.faults,)  # by default the text would be unpickled as the faults

    def inside(self, place: str) -> ConfigError:
        return ConfigError(fault.inside(place) for fault in self.faults)


def join(*places: str) -> str:
    """Join places with dots, skipping empty ones."""
    return ".".join(place for place in places if place)

"""The pictures that a command is asked about, and its answers to them, one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from runners.errors import ImageError
from runners.exit_codes import BAD_INPUT, DONE, report_error
from runners.files.paths import user_path
from runners.pictures.reading import STDIN, find_pictures, without_warnings

NO_NAME = "the name of a picture is empty, perhaps from a shell variable that isn't set"
A = TypeVar("A")


@dataclass(frozen=True)
class Asked:
    """A picture that is asked about, if it has a name, and its path within the given folder, if that was a folder."""

    path: Path | None
    place: Path | None = None

    @property
    def folder(self) -> str | None:
        """The subfolder of the given folder that it is in."""
        return self.place.parts[0] if self.place else None


def expand(images: Sequence[str]) -> list[Asked]:
    """The pictures that the arguments stand for, and paths that can't be read, which are reported in their turn."""
    return [one for given in images for one in _expanded(given)]


def _expanded(given: str) -> list[Asked]:
    if given in ("", "-"):
        return [Asked(STDIN if given else None)]  # Path("") would be the working directory
    unlisted: list[Path] = []  # includes a path that isn't a folder but a picture
    top = user_path(given)
    found = find_pictures(top, unlisted)
    paths = sorted([*found, *unlisted]) or [top]
    return [Asked(path, path.relative_to(top) if path != top else None) for path in paths]


def paths_of(asked: Sequence[Asked]) -> list[Path]:
    """The paths of the pictures that have one."""
    return [one.path for one in asked if one.path]


def answer_all(
    asked: Sequence[Asked], answers: Iterator[A | ImageError], show: Callable[[Asked, A], None], as_json: bool
) -> int:
    """Show the answers in the order of the pictures, and say which can't be read; returns the exit code.

    `answers` has one for each picture that has a name.
    """
    exit_code = DONE
    bar = tqdm(asked, unit="picture", leave=False, disable=None if len(asked) > 1 else True)
    with without_warnings():
        for one in bar:
            answer = next(answers) if one.path else ImageError(NO_NAME)
            with tqdm.external_write_mode():
                if isinstance(answer, ImageError):
                    exit_code = BAD_INPUT
                    _report(answer, one, as_json)
                else:
                    show(one, answer)
    return exit_code


def _report(error: ImageError, one: Asked, as_json: bool) -> None:
    """Say why a picture can't be read."""
    if as_json:
        print(json.dumps({"path": str(one.path or ""), "error": error.reason}), flush=True)
    else:
        report_error(error)

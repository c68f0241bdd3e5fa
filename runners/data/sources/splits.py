"""Which folders hold which classes and splits: names alone decide, and what is passed over is noted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.errors import DataError, short
from runners.pictures.reading import FORMATS, find_pictures, has_pictures

Classes = dict[str, list[Path]]

NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What the folder of a split may be called, in any capitalisation, and with an addition such as `_set`."""
ADDITION = re.compile(r"[\s_.-]*(set|data|dataset|images|pictures|split)?$")
SHOWN = 3
"""This many names are shown of a longer list."""


@dataclass
class Splits:
    """The classes of each split; `val` is None without a folder for validation. `notes`: what a run should say."""

    train: Classes
    test: Classes
    val: Classes | None = None
    notes: list[str] = field(default_factory=list)


def given_splits(path: Path) -> Splits | None:
    """The classes in the folders of the splits, or None if there are no folders in one for training or for test."""
    found: dict[str, Path] = {}
    for name in folders(path):
        if split := _split(name):
            if split in found:
                raise DataError(f"{path}: {found[split].name} and {name} would both be {split}, rename one of them")
            found[split] = path / name
    if not any(folders(found[split]) for split in ("train", "test") if split in found):
        return None
    for split, other in (("train", "test"), ("test", "train")):
        if split not in found:
            hint = ", and no test set is drawn from it" if split == "test" else ""
            raise DataError(f"{path / split}: there is no such folder, although there is {found[other]}{hint}")
    read = {split: classes(found[split]) for split in NAMES if split in found}
    for split in ("val", "test"):
        for name in read.get(split, ()):
            if name not in read["train"]:
                raise DataError(f"{found[split] / name}: there is no class {name} in {found['train']}")
    notes = [f"the validation examples are those of {found['val']}"] if "val" in found else []
    others = [name for name in folders(path) if path / name not in found.values()]
    notes += [f"passed over in {path}, beside {found['train'].name}: {some(others)}"] if others else []
    return Splits(read["train"], read["test"], read.get("val"), notes)


Draw = Callable[[str, int, int], tuple[Sequence[int], Sequence[int]]]


def drawn_splits(path: Path, draw: Draw) -> Splits:
    """Each class divided by `draw(name, number, count)`, which returns the indices for training and for test."""
    train: Classes = {}
    test: Classes = {}
    for number, (name, files) in enumerate(classes(path).items()):
        train[name], test[name] = ([files[index] for index in indices] for indices in draw(name, number, len(files)))
    notes = [] if any(train.values()) else [f"all pictures in {path} are for the test"]
    return Splits(train, test, notes=notes)


def _split(name: str) -> str | None:
    """The split that a folder of this name holds, if any."""
    word = ADDITION.sub("", name.casefold())
    return next((split for split, names in NAMES.items() if word in names), None)


def classes(folder: Path) -> Classes:
    """The pictures in each subfolder, by its name. Raises DataError if one has none, and for folders of other folders.

    These are splits under names that aren't known, or data one level below: none has a picture of its own, but all
    have the same folders in them.
    """
    names = folders(folder)
    if not names:
        raise DataError(f"{folder}: it has no subfolders, give one per class")
    inner = [folders(folder / name) for name in names]
    alike = len(names) > 1 and inner[0] and all(other == inner[0] for other in inner)
    if alike and not any(has_pictures(folder / name) for name in names):
        problem = f"{some(names)} hold no pictures but the same folders, {some(inner[0])}"
        hint = "name them train, val and test if they are splits, or give one of them as data.path"
        raise DataError(f"{folder}: its folders {problem}: {hint}")
    found = {name: find_pictures(folder / name) for name in names}
    for name, files in found.items():
        if not files:
            raise DataError(f"{folder / name}: it has no pictures ({', '.join(FORMATS)})")
    return found


def folders(folder: Path) -> list[str]:
    """The names of the subfolders that aren't hidden, in natural order."""
    return sorted((file.name for file in folder.iterdir() if file.is_dir() and file.name[0] != "."), key=_natural)


def some(names: Sequence[str]) -> str:
    """The names, or the first ones of many."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN + 1 else ""
    return short(", ".join(names[:SHOWN] if more else names)) + more


def _natural(name: str) -> tuple[list[Any], str]:
    """A sort key that compares numbers in names as numbers."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name

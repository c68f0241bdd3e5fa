"""Answers that are pictures: samples drawn from noise, walks between them, and what a network makes of pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from runners.cli.asking import Asked, answer_all, expand, paths_of
from runners.drawing import Sampler
from runners.errors import CheckpointError, OptionError, printable
from runners.exit_codes import DONE
from runners.files import atomic, checkpoint
from runners.files.content import Checkpoint
from runners.files.paths import user_path
from runners.pictures.grid import grid
from runners.pictures.reading import STDIN
from runners.pictures.writing import FORMATS, encoded, gif, suffixes
from runners.prediction import Output, PictureTask
from runners.tasks.generative import Generative
from runners.tasks.task import Task
from runners.tasks.walks import WALKERS

Array = np.ndarray[Any, Any]


def draw_samples(task: Generative, content: Checkpoint, options: argparse.Namespace) -> int:
    """Write a grid of samples, a walk that starts from the first of them, or both; returns the exit code."""
    out = None if options.out is None else _file("--out", options.out, suffixes())
    walk = None if options.walk is None else _file("--walk", options.walk, [".gif"])
    seed = options.seed or 0
    sampler = Sampler(task, content, seed=seed, only=options.only)
    count = options.samples or WALKERS
    about = {"seed": seed, "class": options.only}
    with checkpoint.enough_memory(content):
        if out:
            _save("--out", out, _encoded(_sheet(sampler, count), out))
            _say(options, {"path": str(out), "samples": count, **about}, f"{out}: {_counted(count)}")
        if walk:
            frames, walking = [*sampler.walk(count)], min(count, WALKERS)
            _save("--walk", walk, gif(frames))
            text = f"{walk}: a walk of {_counted(walking)} in {len(frames)} frames"
            _say(options, {"path": str(walk), "samples": walking, "frames": len(frames), **about}, text)
    return DONE


def _sheet(sampler: Sampler, count: int) -> Array:
    """A grid of samples; on a terminal, a bar shows how many of them are drawn."""
    parts = []
    with tqdm(total=count, unit="sample", leave=False, disable=None if count > sampler.batch_size else True) as bar:
        for part in sampler.samples(count):
            parts.append(part)
            bar.update(part.shape[-1])
    return grid(np.concatenate(parts, -1), sampler.columns(count))


def _counted(samples: int) -> str:
    return f"{samples:,} sample{'s' * (samples > 1)}"


def make_pictures(task: Task, content: Checkpoint, options: argparse.Namespace) -> int:
    """Write what the network makes of each picture; returns the exit code."""
    pictures = PictureTask(task, content)
    pictures.require_pictures(options.run)
    asked = expand(options.images)
    targets = _targets(asked, options.out)

    def show(one: Asked, answer: Output) -> None:
        if answer.values.dim() != 3 or len(answer.values) not in (1, 3):
            problem = f"its network gives {list(answer.values.shape)}, pictures are [1 or 3 channels, height, width]"
            raise CheckpointError(f"{content.place}: {problem}")
        target = targets[one]
        _save("--out", target, _encoded(grid(answer.values.numpy()[..., None], 1), target))
        details = {"path": str(answer.path), "out": str(target), **answer.done}
        _say(options, details, f"{answer.path}: {target}")

    return answer_all(asked, pictures.outputs(paths_of(asked)), show, options.json)


def _targets(asked: Sequence[Asked], given: str) -> dict[Asked, Path]:
    """The file for each picture: `given` for a single one, `given`/STEM.png for several, with the subfolders that they
    are in.

    Raises OptionError if two pictures have the same file, if one would replace a picture, or if `given` can't be used.
    """
    out = user_path(given)
    read = {path.resolve() for path in paths_of(asked) if path is not STDIN}
    if not given or (not out.is_dir() and len(asked) == 1 and not asked[0].place):
        return {asked[0]: _not_read(_file("--out", given, suffixes()), read)}
    if out.is_file() or (out.suffix.lower() in FORMATS and not out.is_dir()):
        raise OptionError(f"--out: {out} is the name of one picture, for several give that of a folder")
    _require_folder("--out", out.absolute().parent)
    sources: dict[Path, Path] = {}
    targets = {}
    for one in asked:
        if one.path:
            name = f"{'stdin' if one.path is STDIN else one.path.stem}.png"
            targets[one] = _not_read(out / (one.place.parent if one.place else "") / name, read)
            other = sources.setdefault(targets[one], one.path)
            if other != one.path:
                raise OptionError(f"--out: {other} and {one.path} would both become {targets[one]}: rename one")
    return targets


def _not_read(target: Path, read: Set[Path]) -> Path:
    """The target. Raises OptionError if it is one of the pictures that are read."""
    if target.resolve() in read:
        raise OptionError(f"--out: {target} is one of the pictures that are read, give another name")
    return target


def _file(option: str, given: str, endings: Sequence[str]) -> Path:
    """The path of a picture to write. Raises OptionError if it can't be one."""
    path = user_path(given)
    if not given:
        raise OptionError(f"{option}: the name is empty, perhaps from a shell variable that isn't set")
    if path.is_dir():
        raise OptionError(f"{option}: {path} is a folder, give the name of a picture in it")
    if path.suffix.lower() not in endings:
        last = " or ".join(filter(None, [", ".join(endings[:-1]), endings[-1]]))
        raise OptionError(f"{option}: {path} is not allowed, give a name that ends in {last}")
    _require_folder(option, path.absolute().parent)
    return path


def _require_folder(option: str, folder: Path) -> None:
    if not folder.is_dir():
        raise OptionError(f"{option}: there is no folder {folder}")


def _encoded(picture: Array, file: Path) -> bytes:
    """A picture in the format that a file's name says. Raises OptionError if the format can't hold it."""
    try:
        return encoded(picture, file.suffix.lower())
    except (ValueError, OSError) as error:
        height, width = picture.shape[:2]
        raise OptionError(f"--out: {file}: {width}x{height} pixels can't be written in this format: {error}") from None


def _save(option: str, file: Path, content: bytes) -> None:
    """Write a file, with the folder that it is in. Raises OptionError if that fails."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(file, content)
    except OSError as error:
        raise OptionError(f"{option}: {file} can't be written: {error.strerror}") from None


def _say(options: argparse.Namespace, details: dict[str, Any], text: str) -> None:
    """Print what was written."""
    print(json.dumps(details) if options.json else printable(text), flush=True)

"""The command behind predict.py: classify pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from cnn import ConfigError
from runners.errors import ImageError, InputError, program
from runners.exit_codes import BAD_INPUT, DONE, report_error
from runners.files.paths import user_path
from runners.pictures.reading import STDIN, find_pictures, without_warnings
from runners.prediction import Predictor

NO_NAME = "the name of a picture is empty, perhaps from a shell variable that isn't set"


def main(arguments: Sequence[str]) -> int:
    """Classify pictures and return the exit code."""
    parser = argparse.ArgumentParser(prog=program("predict"), description="Classify pictures with a trained network.")
    parser.add_argument("run", help="a run directory, or a checkpoint in it")
    parser.add_argument("images", nargs="+", help="pictures, folders of pictures, or - for the standard input")
    parser.add_argument("--top", type=_count, default=3, metavar="K", help="show the K most likely classes (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which weights (default best)")
    options = parser.parse_args(arguments)
    try:
        images = _without_extensions(options.images)
        if not images:
            parser.error("the following arguments are required: images")
        predictor = Predictor.load(options.run, options.checkpoint)
    except (ConfigError, InputError) as error:
        return report_error(error)
    asked = [one for given in images for one in _expand(given)]
    try:
        with without_warnings():
            return _answer(predictor, asked, options)
    except InputError as error:  # a fault of the network, which every picture would report
        return report_error(error)


@dataclass(frozen=True)
class Asked:
    """A picture that is asked about, if it has a name, and the subfolder of the given folder that it is in."""

    path: Path | None
    folder: str | None = None


def _without_extensions(arguments: list[str]) -> list[str]:
    """The arguments without `extensions=...`, whose files are imported; Hydra, which reads it, only if it is there."""
    if not any(argument.startswith("extensions=") for argument in arguments):
        return arguments
    from runners.config import extensions

    return extensions.load_from_arguments(arguments)[1]


def _answer(predictor: Predictor, asked: Sequence[Asked], options: argparse.Namespace) -> int:
    """Print the answers in the order of the pictures; returns the exit code."""
    answers = predictor.answers([one.path for one in asked if one.path])
    exit_code, read, right = DONE, 0, 0
    bar = tqdm(asked, unit="picture", leave=False, disable=None if len(asked) > 1 else True)
    for one in bar:
        answer = next(answers) if one.path else ImageError(NO_NAME)
        with tqdm.external_write_mode():
            if isinstance(answer, ImageError):
                exit_code = BAD_INPUT
                _report(answer, one, options)
                continue
            read += 1
            right += answer.ranking[0][0] == one.folder
            if options.json:
                print(json.dumps(answer.as_json(options.top)), flush=True)
            else:
                print(answer.as_text(options.top) if len(asked) == 1 else answer.as_line(), flush=True)
    names = set(predictor.content.data.class_names)
    if read > 1 and not options.json and all(one.folder in names for one in asked):
        share = f"{right:,} of the {read:,} pictures that were read are of the class that their folder is named as"
        print(f"accuracy {right / read:.2%}: {share}")
    return exit_code


def _report(error: ImageError, one: Asked, options: argparse.Namespace) -> None:
    """Say why a picture can't be read."""
    if options.json:
        print(json.dumps({"path": str(one.path or ""), "error": error.reason}), flush=True)
    else:
        report_error(error)


def _expand(given: str) -> list[Asked]:
    """The pictures that an argument stands for, and paths that can't be read, which are reported in their turn."""
    if given in ("", "-"):
        return [Asked(STDIN if given else None)]  # Path("") would be the working directory
    unlisted: list[Path] = []  # includes a path that isn't a folder but a picture
    top = user_path(given)
    found = find_pictures(top, unlisted)
    paths = sorted([*found, *unlisted]) or [top]
    return [Asked(path, path.relative_to(top).parts[0] if path != top else None) for path in paths]


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 10 else 0  # Python refuses to convert more than 4,300 digits
    if number < 1:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise argparse.ArgumentTypeError(f"{shown} is not allowed, give a whole number >= 1 of at most 9 digits")
    return number

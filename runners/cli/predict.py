"""The command behind predict.py: classify pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from cnn import ConfigError
from runners.config import extensions
from runners.errors import ImageError, InputError, program
from runners.exit_codes import BAD_INPUT, DONE, report_error
from runners.files.paths import user_path
from runners.pictures.reading import find_pictures, without_warnings
from runners.prediction import Predictor


def main(arguments: Sequence[str]) -> int:
    """Classify pictures and return the exit code."""
    parser = argparse.ArgumentParser(prog=program("predict"), description="Classify pictures with a trained network.")
    parser.add_argument("run", help="a run directory, or a checkpoint in it")
    parser.add_argument("images", nargs="+", help="pictures, or folders of pictures")
    parser.add_argument("--top", type=_count, default=3, metavar="K", help="show the K most likely classes (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which weights (default best)")
    options = parser.parse_args(arguments)
    try:
        _, images = extensions.load_from_arguments(options.images)
        if not images:
            parser.error("the following arguments are required: images")
        predictor = Predictor.load(options.run, options.checkpoint)
    except (ConfigError, InputError) as error:
        return report_error(error)
    paths = [path for given in images for path in _expand(given)]
    bar = tqdm(paths, unit="picture", leave=False, disable=None if len(paths) > 1 else True)
    try:
        with without_warnings():
            return max(_predict(predictor, path, options, alone=len(paths) == 1) for path in bar)
    except InputError as error:  # a fault of the network, which every picture would report
        return report_error(error)


def _predict(predictor: Predictor, path: str, options: argparse.Namespace, alone: bool) -> int:
    """Classify one picture, or report why it can't be read; returns its exit code."""
    try:
        if not path:
            raise ImageError("the name of a picture is empty, perhaps from a shell variable that isn't set")
        prediction = predictor.predict(Path(path))
    except ImageError as error:
        with tqdm.external_write_mode():
            if not options.json:
                return report_error(error)
            print(json.dumps({"path": path, "error": error.reason}), flush=True)
            return BAD_INPUT
    with tqdm.external_write_mode():
        if options.json:
            print(json.dumps(prediction.as_json(options.top)), flush=True)
        else:
            print(prediction.as_text(options.top) if alone else prediction.as_line(), flush=True)
    return DONE


def _expand(given: str) -> list[str]:
    """The pictures that an argument stands for, and paths that can't be read, which are reported in their turn."""
    if not given:
        return [given]  # Path("") would be the working directory
    path = user_path(given)
    unlisted: list[Path] = []  # includes a path that isn't a folder but a picture
    found = find_pictures(path, unlisted)
    return [str(path) for path in sorted([*found, *unlisted]) or [path]]


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 10 else 0  # Python refuses to convert more than 4,300 digits
    if number < 1:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise argparse.ArgumentTypeError(f"{shown} is not allowed, give a whole number >= 1 of at most 9 digits")
    return number

"""The command behind predict.py: it names what is on pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from cnn import ConfigError
from runners.config import extensions
from runners.errors import ImageError, InputError
from runners.exit_codes import BAD_INPUT, DONE, conclude
from runners.pictures.reading import find_pictures, without_warnings
from runners.prediction import Predictor


def main(arguments: Sequence[str]) -> int:
    """Name what is on pictures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="predict.py", description="Name what is on pictures, with a trained network.")
    parser.add_argument("run", help="a run directory, or a checkpoint in it")
    parser.add_argument("images", nargs="+", help="pictures, or folders of pictures")
    parser.add_argument("--top", type=_count, default=3, metavar="K", help="show the K likeliest classes (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which weights (default best)")
    options = parser.parse_args(arguments)
    try:
        _, images = extensions.load_typed(options.images)
        if not images:
            parser.error("the following arguments are required: images")
        predictor = Predictor.load(options.run, options.checkpoint)
    except (ConfigError, InputError) as error:
        return conclude(error)
    paths = [path for given in images for path in _asked(given)]
    bar = tqdm(paths, unit="picture", leave=False, disable=None if len(paths) > 1 else True)
    try:
        with without_warnings():
            return max(_predict(predictor, path, options, alone=len(paths) == 1) for path in bar)
    except InputError as error:  # of the network, and so of every picture
        return conclude(error)


def _predict(predictor: Predictor, path: str, options: argparse.Namespace, alone: bool) -> int:
    """Name what is on one picture, or tell why it can't be read; returns the exit code for it."""
    try:
        if not path:
            raise ImageError("the name of a picture is empty, as of a variable in the shell that isn't set")
        prediction = predictor.predict(Path(path))
    except ImageError as error:
        with tqdm.external_write_mode():
            if not options.json:
                return conclude(error)
            print(json.dumps({"path": path, "error": error.reason}), flush=True)
            return BAD_INPUT
    with tqdm.external_write_mode():
        if options.json:
            print(json.dumps(prediction.as_json(options.top)), flush=True)
        else:
            print(prediction.in_words(options.top) if alone else prediction.in_a_line(), flush=True)
    return DONE


def _asked(given: str) -> list[str]:
    """The pictures that are meant, and what can't be read, which is told in its turn."""
    if not given:
        return [given]  # as a path it would be the working directory
    unlisted: list[Path] = []  # also what isn't a folder at all, but a picture
    found = find_pictures(Path(given), unlisted)
    return [str(path) for path in sorted([*found, *unlisted]) or [Path(given)]]


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 10 else 0  # of 4,300 digits Python makes no number
    if number < 1:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise argparse.ArgumentTypeError(f"{shown} is not allowed, give a whole number >= 1 of at most 9 digits")
    return number

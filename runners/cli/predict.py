"""The command behind predict.py: what a trained network makes of pictures, or draws from noise."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from cnn import ConfigError
from runners.cli.answering import TOP, give_values, name_classes
from runners.cli.drawing import draw_samples, make_pictures
from runners.errors import InputError, OptionError, program, short
from runners.exit_codes import report_error
from runners.files import checkpoint
from runners.files.content import Checkpoint
from runners.tasks.generative import Generative
from runners.tasks.registry import saved_task
from runners.tasks.task import Task

MAX_SAMPLES = 10_000

ANSWERS: dict[str, Callable[[Task, Checkpoint, argparse.Namespace], int]] = {
    "classes": name_classes,
    "values": give_values,
    "pictures": make_pictures,
}
"""What is done with pictures, by what a task predicts."""
USES = {
    "classes": ("names the classes of pictures", "IMAGE"),
    "values": ("gives values for pictures", "IMAGE"),
    "pictures": ("makes pictures of pictures", "IMAGE --out FILE"),
}
DRAWS = ("draws pictures from noise", "--samples N --out FILE")


def main(arguments: Sequence[str]) -> int:
    """Answer for a trained network and return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.images = _without_extensions(options.images or [])
        drawing = options.samples is not None or options.walk is not None
        if not options.images and not drawing:
            parser.error("the following arguments are required: images")
        _check(options, drawing)
        content = checkpoint.load_run(options.run, options.checkpoint)
        task = saved_task(content)
        _check_use(task, options, drawing)
        if drawing and isinstance(task, Generative):
            return draw_samples(task, content, options)
        return ANSWERS[task.predicts](task, content, options)
    except (ConfigError, InputError) as error:
        return report_error(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("predict"),
        description="Classify pictures with a trained network, or whatever it does: compute values, make pictures.",
    )
    parser.add_argument("run", help="a run directory, or a checkpoint in it")
    images = parser.add_argument("images", nargs="+", help="pictures, folders of pictures, or - for the standard input")
    images.required = False  # samples need none
    top = f"show the K most likely classes (default {TOP})"
    parser.add_argument("--top", type=_whole(1, 10**9 - 1), metavar="K", help=top)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which weights (default best)")
    parser.add_argument("--out", metavar="FILE", help="where to write a picture, or the folder for those of several")
    group = parser.add_argument_group("pictures from noise, by generators and decoders")
    group.add_argument("--samples", type=_whole(1, MAX_SAMPLES), metavar="N", help="draw N pictures, in a grid")
    group.add_argument("--walk", metavar="FILE.gif", help="draw the way from one to the next, of up to 16 at once")
    group.add_argument("--class", dest="only", metavar="NAME", help="draw this class alone")
    group.add_argument("--seed", type=_whole(0, 10**9 - 1), metavar="S", help="take other noise (default 0)")
    return parser


def _check(options: argparse.Namespace, drawing: bool) -> None:
    """Raise OptionError if the options don't go together, whatever the run is."""
    asked = "--samples" if options.samples is not None else "--walk"
    if drawing and options.images:
        raise OptionError(f"{asked} draws from noise and takes no pictures, leave out {short(options.images[0])}")
    if options.samples is not None and options.out is None and options.walk is None:
        raise OptionError("--samples: say where to write them: --out FILE for a grid, --walk FILE.gif for a walk")
    for option, value in (("--class", options.only), ("--seed", options.seed)):
        if value is not None and not drawing:
            raise OptionError(f"{option} is for pictures from noise, give it with --samples or --walk")


def _check_use(task: Task, options: argparse.Namespace, drawing: bool) -> None:
    """Raise OptionError if a task can't do what is asked of it."""
    run = short(options.run)
    does = [USES[task.predicts]] if task.predicts in USES else []
    does += [DRAWS] if isinstance(task, Generative) else []
    uses = f"the task {task.kind} {', and '.join(f'{what} ({run} {how})' for what, how in does)}"
    if drawing and not isinstance(task, Generative):
        raise OptionError(f"{run} has nothing to draw from noise: {uses}")
    if options.images and task.predicts not in ANSWERS:
        raise OptionError(f"{run} takes no pictures: {uses}")
    if options.top is not None and (drawing or task.predicts != "classes"):
        raise OptionError(f"--top: {run} has no classes to rank: {uses}")
    if options.out is not None and not drawing and task.predicts != "pictures":
        raise OptionError(f"--out: {run} makes no pictures: {uses}")
    if options.out is None and not drawing and task.predicts == "pictures":
        raise OptionError(f"--out is missing: {uses}")


def _without_extensions(arguments: list[str]) -> list[str]:
    """The arguments without `extensions=...`, whose files are imported; Hydra, which reads it, only if it is there."""
    if not any(argument.startswith("extensions=") for argument in arguments):
        return arguments
    from runners.config import extensions

    return extensions.load_from_arguments(arguments)[1]


def _whole(low: int, high: int) -> Callable[[str], int]:
    """The type of an option that is a whole number in this range."""

    def convert(text: str) -> int:
        number = int(text) if text.isdecimal() and len(text) < 10 else -1  # Python refuses more than 4,300 digits
        if not low <= number <= high:
            shown = text if len(text) <= 40 else f"{text[:37]}..."
            allowed = f">= {low} of at most 9 digits" if high == 10**9 - 1 else f"from {low:,} to {high:,}"
            raise argparse.ArgumentTypeError(f"{shown} is not allowed, give a whole number {allowed}")
        return number

    return convert

"""Answers to pictures in words and numbers: their classes, or values."""

from __future__ import annotations

import argparse
import json
from typing import Any

from runners.cli.asking import Asked, answer_all, expand, paths_of
from runners.errors import printable
from runners.files.content import Checkpoint
from runners.prediction import Output, PictureTask, Prediction, Predictor
from runners.tasks.task import Task

TOP = 3
"""How many classes are shown unless `--top` says otherwise."""


def name_classes(task: Task, content: Checkpoint, options: argparse.Namespace) -> int:
    """Print the likeliest classes of each picture; returns the exit code."""
    predictor = Predictor(task, content)
    predictor.require_pictures(options.run)
    asked = expand(options.images)
    read = right = 0

    def show(one: Asked, answer: Prediction) -> None:
        nonlocal read, right
        read += 1
        right += answer.ranking[0][0] == one.folder
        if options.json:
            print(json.dumps(answer.as_json(options.top or TOP)), flush=True)
        else:
            text = answer.as_text(options.top or TOP) if len(asked) == 1 else answer.as_line()
            print(text, flush=True)

    exit_code = answer_all(asked, predictor.answers(paths_of(asked)), show, options.json)
    names = set(content.data.class_names)
    if read > 1 and not options.json and all(one.folder in names for one in asked):
        share = f"{right:,} of the {read:,} pictures that were read are of the class that their folder is named as"
        print(f"accuracy {right / read:.2%}: {share}")
    return exit_code


def give_values(task: Task, content: Checkpoint, options: argparse.Namespace) -> int:
    """Print the values that the task predicts for each picture; returns the exit code."""
    pictures = PictureTask(task, content)
    pictures.require_pictures(options.run)
    asked = expand(options.images)

    def show(one: Asked, answer: Output) -> None:
        values = answer.values.tolist()
        if options.json:
            listed = values if answer.values.dim() else [values]
            print(json.dumps({"path": str(answer.path), "values": listed, **answer.done}), flush=True)
        else:
            shown = values[0] if answer.values.shape == (1,) else values
            print(f"{printable(answer.path)}: {_as_text(shown)}", flush=True)

    return answer_all(asked, pictures.outputs(paths_of(asked)), show, options.json)


def _as_text(values: Any) -> str:
    """Numbers with six digits, in nested lists."""
    return f"[{', '.join(map(_as_text, values))}]" if isinstance(values, list) else f"{values:.6g}"

"""The classifier that judges a task's samples: found in the cache, made once, or named by the config."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from cnn import ops
from cnn.faults import ConfigError, Fault
from cnn.ops.threads import available_threads
from cnn.text import first_of, short
from runners.config.saved import composed
from runners.data import Dataset
from runners.data.download import cache_folder
from runners.errors import CheckpointError, RunDirectoryError
from runners.files import checkpoint
from runners.files.content import SavedData
from runners.signals import Interrupted
from runners.tasks.generative import Generative
from runners.tasks.judge import Judge
from runners.tasks.task import Task

log = logging.getLogger(__name__)
RECIPE = "judge"
"""The experiment that makes a judge."""
UNCOUNTED = ("run_dir", "threads", "device", "precision")
"""Keys that don't change what is made; `precision` is always the same, as figures of different runs are compared."""

NONE_MADE = "no judge can be made of these data"
INSTEAD = "give a run directory, or null to measure nothing"

Run = Callable[[Mapping[str, Any]], object]
"""Trains what a resolved config describes."""


def equip(task: Task, raw: Mapping[str, Any], data: Dataset | SavedData, run: Run) -> None:
    """Give a generative task its judge, if it wants one: that of a run directory, or of the data of a run's config.

    `run` trains the recipe, if no judge of these data was made before. Raises ConfigError or CheckpointError if the
    judge can't be used.
    """
    if not isinstance(task, Generative) or task.judge_from is None:
        return
    file = _made(raw, data, run) if task.judge_from == "auto" else _named(task.judge_from)
    judge = Judge.of(checkpoint.load(file))
    if judge.input_shape != tuple(data.input_shape):
        problem = f"{file} judges pictures {list(judge.input_shape)}, but the data's are {list(data.input_shape)}"
        raise ConfigError([Fault("task.judge", problem)])
    if task.uses_classes and judge.class_names != data.class_names:
        known, wanted = (first_of([short(name) for name in names]) for names in (judge.class_names, data.class_names))
        raise ConfigError([Fault("task.judge", f"{file} knows the classes {known}, the data have {wanted}")])
    task.judge = judge
    log.info("samples are judged by %s, weights sha256 %s", file, judge.digest)


def _named(run: str) -> Path:
    try:
        return checkpoint.locate(run)
    except CheckpointError as error:
        raise CheckpointError(f"task.judge: {error}") from None


def _made(raw: Mapping[str, Any], data: Dataset | SavedData, run: Run) -> Path:
    """The checkpoint of the judge of these data, which is made if it isn't there yet."""
    classes = len(data.class_names)
    if classes < 2:
        raise ConfigError([Fault("task.judge", f"{NONE_MADE}, which have {classes or 'no'} classes: {INSTEAD}")])
    section = {**raw["data"], "num_examples": None}
    recipe = {**composed([f"experiment={RECIPE}", f"model.classes={classes}"]), "data": section}
    if raw.get("debug") == "fast":
        recipe["debug"] = "fast"
    counted = {key: value for key, value in recipe.items() if key not in UNCOUNTED}
    counted["data"] = {key: value for key, value in section.items() if key != "path"}
    digest = hashlib.sha256(json.dumps([counted, data.fingerprint], sort_keys=True).encode()).hexdigest()
    folder = cache_folder("judges") / f"{section['name']}-{digest[:12]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{folder.parent}: can't be made for the judge: {error.strerror}") from None
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "summary.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
            _say(f"making the classifier that judges samples of these data, once: {folder}")
            threads = min(raw.get("threads") or available_threads(), available_threads())
            try:
                with redirect_stdout(sys.stderr):  # stdout is for what was asked for
                    here = {"run_dir": str(folder), "threads": threads, "device": raw.get("device", "auto")}
                    run({**recipe, **here, "precision": "float32"})
            except Interrupted as signal:
                signal.resume = None  # the next start makes the judge again
                raise
            except ConfigError as error:  # of the recipe, which isn't what was typed
                raise ConfigError([Fault("task.judge", f"{NONE_MADE}: {error.faults[0]}; {INSTEAD}")]) from None
            accuracy = json.loads((folder / "summary.json").read_text())["test"]["test/accuracy"]
            _say(f"the judge's test accuracy is {accuracy:.2%}")
            ops.use_kernels(raw.get("kernels", "compiled"))  # the recipe has its own
            ops.set_precision(raw.get("precision", "float32"))
            ops.set_threads(threads, fixed=bool(raw.get("threads_fixed")))
    return folder / "checkpoints" / "best.pkl"


def _say(text: str) -> None:
    log.info(text)
    with suppress(OSError):  # a closed output doesn't stop a run
        print(text, file=sys.stderr, flush=True)

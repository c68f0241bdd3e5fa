"""Checkpoints whose trailer is right and whose content isn't: what becomes of them when they are used."""

from __future__ import annotations

import io
import logging
import math
import os
import pickle
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnn import ConfigError
from runners.cli import train
from runners.errors import InputError
from runners.files import plain_pickle
from runners.prediction import Predictor
from runners.training import evaluation, resume
from tools.faults.memory import Peak
from tools.faults.pickles import MAX_BYTES, Hang
from tools.small_runs import SMALL_MODEL, write_dataset

GROUP = "contents of a checkpoint"
MAX_SECONDS = 20
"""Of a processor, for one content."""
MAX_LINE_LENGTH = 1500

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31 - 1, 2**40, 0.5, -1.0, 1e308, -1e308, 1e-308, math.nan, math.inf),
    *("", "x", "abc" * 10_000, "\x1b[31mred\nerror: fake", "\ud800", "a\0b", "???", "${model}"),
    *([], {}, [[]], [None], {"name": "x"}, {"a": {"b": [1]}}, np.zeros(2), np.array(3), np.zeros(0)),
)
ARRAYS: tuple[Callable[[Any], Any], ...] = (
    lambda array: array.reshape(-1, 1),
    lambda array: array[:0],
    lambda array: array.astype(np.float64),
    lambda array: array.astype(np.int64),
    *(lambda array, fill=fill: np.full_like(array, fill) for fill in (np.nan, np.inf, -1, 3e38, 1e-38)),
)


def _nested(depth: int) -> list[Any]:
    return ["relu"] if not depth else [{"residual": {"body": _nested(depth - 1)}}]


ABSURD: tuple[list[Any], ...] = (
    [],
    ["relu"] * 3_000,
    ["relu"] * 50_000,
    ["unknown"] * 50_000,
    _nested(12),
    _nested(40),
    [{"repeat": {"times": 1000, "layers": [{"repeat": {"times": 1000, "layers": ["relu"]}}]}}],
    [{"repeat": {"times": 1000, "layers": ["relu"] * 5}} for _ in range(60)],
    [{"conv2d": {"out_channels": 1, "kernel_size": 1, "padding": 2**31 - 1}}],
    [{"conv2d": {"out_channels": 2**31 - 1, "kernel_size": 1}}],
    [{"conv2d": {f"unknown{number}": 1 for number in range(20_000)}}],
    [{"conv_transpose2d": {"out_channels": 1, "kernel_size": 1, "stride": 2**20}}],
    [{"max_pool2d": {"kernel_size": 2**30, "padding": 2**29, "dilation": 2**30}}],
    [{"upsample": {"scale_factor": 2**20}}],
    [{"linear": {"out_features": 2**31 - 1}}],
    [{"reshape": {"shape": [-1, 2**31 - 1]}}],
)


def contents(good: dict[str, Any], count: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each absurd architecture and size, then as many changes at random of a checkpoint's content as are wanted."""
    for number, layers in enumerate(ABSURD):
        for before in (False, True):
            changed = deepcopy(good)
            model = changed["networks"]["model"]["model"]
            model["layers"] = layers + (model["layers"] if before else [])
            changed["config"]["model"] = deepcopy(model)
            yield f"architecture {number}", changed
    for size in (30_000, 2**31 - 1):
        changed = deepcopy(good)
        changed["data"] |= {"class_names": ["a"], "input_shape": [1, size, size]}
        changed["networks"]["model"] |= {
            "model": {"layers": ["global_avg_pool"]},
            "weights": {},
            "input_shape": [1, size, size],
        }
        yield f"input {size}", changed
    dice = random.Random(seed)
    for _ in range(count):
        changed = deepcopy(good)
        told = [_change(changed, dice) for _ in range(dice.choice((1, 1, 1, 3)))]
        yield ", ".join(told), changed


def _change(content: dict[str, Any], dice: random.Random) -> str:
    """Change one thing somewhere in the content; returns what."""
    place: Any = content
    path = [dice.choice([*content])]
    while isinstance(inner := place[path[-1]], dict | list) and inner and dice.random() < 0.8:
        place = inner
        path.append(dice.choice([*inner] if isinstance(inner, dict) else range(len(inner))))
    key, value = path[-1], dice.choice(VALUES)
    told = f"{'.'.join(map(str, path))} = {value!r:.60}"
    match dice.randrange(6):
        case 0:
            del place[key]
        case 1 if isinstance(place, dict):
            place[dice.choice(("more", "x\n\x1b[2J", "y" * 60_000))] = deepcopy(value)
        case 2 | 3 | 4 if isinstance(place[key], np.ndarray):
            place[key] = dice.choice(ARRAYS)(place[key])
        case _:
            place[key] = deepcopy(value)
    return told if content else "all"


class Uses:
    """A tiny run, a picture, and everything that is done with a checkpoint but training on."""

    def __init__(self, folder: Path) -> None:
        os.chdir(folder)
        data = write_dataset(folder / "data", count=60)
        sys.argv = ["run.py"]
        small = [f"data.path={data}", "data.val_examples=20", SMALL_MODEL, "epochs=1", "batch_size=20", "threads=1"]
        with redirect_stdout(io.StringIO()):
            assert train.main(["data=idx", "run_dir=good", "kernels=reference", *small]) == 0
        Image.new("L", (10, 10), 200).save("picture.png")
        shutil.copytree("good", "run")
        self.good = plain_pickle.read(Path("good/checkpoints/last.pkl"))
        vars(resume)["carry_out"] = lambda *_, **__: None

    def refusals(self, content: dict[str, Any]) -> list[str]:
        """What is said of a content by those that refuse it. Raises AssertionError for answers that aren't numbers."""
        sealed = plain_pickle.seal(_pickled(content))
        for name in ("last", "best", "previous"):
            Path(f"run/checkpoints/{name}.pkl").write_bytes(sealed)
        told = []
        for use in (self._predict, self._evaluate, self._resume):
            try:
                use()
            except (ConfigError, InputError) as error:
                told.append(str(error))
        return told

    @staticmethod
    def _predict() -> None:
        prediction = Predictor.load("run/checkpoints/best.pkl").predict(Path("picture.png"))
        assert all(0 <= chance <= 1 for _, chance in prediction.ranking), prediction

    @staticmethod
    def _evaluate() -> None:
        found = evaluation.evaluate("run/checkpoints/best.pkl")
        assert math.isfinite(found.means["test/loss"]), found

    @staticmethod
    def _resume() -> None:
        resume.resume(Path("run"), ["epochs=3"], may_change=True)


def _pickled(content: dict[str, Any]) -> bytes:
    return pickle.dumps(plain_pickle._copy(content), plain_pickle.PROTOCOL)


def outcome(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """What became of all contents, and under "wrong" what should not have. In a process of its own."""

    def stop(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, stop)
    logging.disable(logging.WARNING)
    np.seterr(invalid="ignore")  # whole numbers can't be NaN
    uses = Uses(folder)
    assert uses.refusals(uses.good) == []
    peak = Peak()
    found: dict[str, Any] = {"files": 0, "refused": 0, "read": 0, "slowest": 0.0, "wrong": []}
    for name, content in contents(uses.good, count, seed):
        begun = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        try:
            told = uses.refusals(content)
            found["refused" if told else "read"] += 1
            found["wrong"] += [f"{name}: {line!r:.200}" for text in told for line in _unreadable(text)]
        except BaseException as error:
            found["wrong"].append(f"{name}: {error!r}"[:300])
        signal.setitimer(signal.ITIMER_PROF, 0)
        found["files"] += 1
        found["slowest"] = max(found["slowest"], time.process_time() - begun)
    memory = peak.grown()
    found["wrong"] += [f"{memory >> 20} MB"] if memory > MAX_BYTES else []
    return {**found, "memory": memory}


def _unreadable(text: str) -> list[str]:
    """The lines of a message that can't be printed, or could be taken for others; all of them if there are many."""
    lines = text.split("\n")
    bad = [line for line in lines if not line.isprintable() or line.startswith("error:") or len(line) > MAX_LINE_LENGTH]
    return bad or (lines if len(lines) > 100 else [])

"""The commands as programs: run.py, predict.py, runners.evaluate, runners.report, and as cnn-train, cnn-predict, ..."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from runners.signals import end_with_parent, exit_on_signals


def train() -> NoReturn:
    end_with_parent()
    with _importing():
        from runners.cli.train import main
    _execute(main)


def predict() -> NoReturn:
    with _importing():
        from runners.cli.predict import main
    _execute(main)


def evaluate() -> NoReturn:
    with _importing():
        from runners.cli.evaluate import main
    _execute(main)


def report() -> NoReturn:
    with _importing():
        from runners.cli.report import main
    _execute(main, computes=False)


def _execute(main: Callable[[Sequence[str]], int], *, computes: bool = True) -> NoReturn:
    from runners.exit_codes import guarded

    exit_code = guarded(main, sys.argv[1:], computes=computes)
    gc.freeze()  # the process ends, and searching all it has made for garbage would take 0.2 s more
    sys.exit(exit_code)


@contextmanager
def _importing() -> Iterator[None]:
    """Imports take a second or two: a signal meanwhile has its exit code, too, and a missing package is one line.

    What is imported stays, so looking for garbage in it is in vain: that took a third of a second of the imports, and,
    unless it is frozen, as much again during a run and 0.7 s at its end.
    """
    exit_on_signals()
    gc.disable()
    try:
        yield
        gc.freeze()
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in ("cnn", "runners"):
            raise
        problem = f"{package} is not installed for {sys.executable}"
        print(f"error: {problem}: use .venv/bin/python, or install it as README.md says", file=sys.stderr)
        sys.exit(2)
    finally:
        gc.enable()

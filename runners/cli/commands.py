"""The commands as programs: run.py, predict.py, runners.evaluate, and cnn-train, cnn-predict and cnn-evaluate."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

from runners.signals import exit_on_signals


def train() -> NoReturn:
    _execute("train")


def predict() -> NoReturn:
    _execute("predict")


def evaluate() -> NoReturn:
    _execute("evaluate")


def _execute(command: str) -> NoReturn:
    """Import the command and run it. A signal during the imports, which take a second or two, has its exit code too."""
    exit_on_signals()
    try:
        main = importlib.import_module(f"runners.cli.{command}").main
        guarded = importlib.import_module("runners.exit_codes").guarded
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in ("cnn", "runners"):
            raise
        problem = f"{package} is not installed for {sys.executable}"
        print(f"error: {problem}: use .venv/bin/python, or install it as README.md says", file=sys.stderr)
        sys.exit(2)
    sys.exit(guarded(main, sys.argv[1:]))

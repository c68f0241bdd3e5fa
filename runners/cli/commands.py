"""The commands as programs: run.py, predict.py, runners.evaluate, and cnn-train, cnn-predict and cnn-evaluate.

A signal during the imports, which take a second or two, ends a program as one after them does.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from runners.signals import exit_on_signals


def train() -> NoReturn:
    exit_on_signals()
    from runners.cli.train import main
    from runners.exit_codes import guarded

    sys.exit(guarded(main, sys.argv[1:]))


def predict() -> NoReturn:
    exit_on_signals()
    from runners.cli.predict import main
    from runners.exit_codes import guarded

    sys.exit(guarded(main, sys.argv[1:]))


def evaluate() -> NoReturn:
    exit_on_signals()
    from runners.cli.evaluate import main
    from runners.exit_codes import guarded

    sys.exit(guarded(main, sys.argv[1:]))

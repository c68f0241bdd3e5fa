"""Classify pictures: `python predict.py RUN IMAGE... [--top K] [--json] [--checkpoint best|last]`."""

from __future__ import annotations

import sys

from runners.signals import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()
    from runners.cli.predict import main  # the import takes a second or two
    from runners.exit_codes import guarded

    sys.exit(guarded(main, sys.argv[1:]))

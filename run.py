"""Train: `python run.py [key=value ...]`; sweep: `python run.py -m key=a,b ...`; help: `python run.py --help`."""

from __future__ import annotations

import sys

from runners.signals import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()
    from runners.cli.train import main  # the import takes a second or two
    from runners.exit_codes import guarded

    sys.exit(guarded(main, sys.argv[1:]))

"""Train: `python run.py [key=value ...]`; sweep: `python run.py -m key=a,b ...`; help: `python run.py --help`."""

from __future__ import annotations

import sys

from runners.signals import leave_on_signals

if __name__ == "__main__":
    leave_on_signals()
    from runners.commands import train  # takes a second or two
    from runners.exits import guarded

    sys.exit(guarded(train, sys.argv[1:]))

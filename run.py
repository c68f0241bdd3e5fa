"""Train: `python run.py [key=value ...]`; sweep: `python run.py -m key=a,b ...`; help: `python run.py --help`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from runners.commands import guarded, train  # takes a second or two, in which Ctrl-C is no fault either
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(guarded(train, sys.argv[1:]))

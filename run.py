"""Train: `python run.py [key=value ...]`; sweep: `python run.py -m key=a,b ...`; help: `python run.py --help`."""

from __future__ import annotations

import sys

from runners.commands import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))

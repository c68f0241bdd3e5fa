"""Evaluate a saved run on a dataset: `python -m runners.evaluate RUN [data=NAME] [data.KEY=VALUE ...]`."""

from __future__ import annotations

import sys

from runners.cli.evaluate import main
from runners.exit_codes import guarded

if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))

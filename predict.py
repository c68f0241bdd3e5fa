"""Name what is on pictures: `python predict.py RUN IMAGE... [--top K] [--json] [--checkpoint best|last]`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from runners.commands import guarded, predict  # takes a second or two, in which Ctrl-C is no fault either
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(guarded(predict, sys.argv[1:]))

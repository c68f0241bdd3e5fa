"""Name what is on pictures: `python predict.py RUN IMAGE... [--top K] [--json] [--checkpoint best|last]`."""

from __future__ import annotations

import sys

from runners.commands import predict

if __name__ == "__main__":
    sys.exit(predict(sys.argv[1:]))

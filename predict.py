"""Classify pictures: `python predict.py RUN IMAGE... [--top K] [--json] [--checkpoint best|last]`."""

from __future__ import annotations

from runners.cli.commands import predict

if __name__ == "__main__":
    predict()

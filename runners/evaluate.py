"""Evaluate a saved run on a dataset: `python -m runners.evaluate RUN [data=NAME] [data.KEY=VALUE ...]`."""

from __future__ import annotations

from runners.cli.commands import evaluate

if __name__ == "__main__":
    evaluate()

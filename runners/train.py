"""Train, as run.py does: `python -m runners.train [KEY=VALUE ...]`. The jobs of a sweep are started with it."""

from __future__ import annotations

from runners.cli.commands import train

if __name__ == "__main__":
    train()

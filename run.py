"""Train: `python run.py [key=value ...]`; sweep: `python run.py -m key=a,b ...`; help: `python run.py --help`."""

from __future__ import annotations

from runners.cli.commands import train

if __name__ == "__main__":
    train()

"""Compare runs and sweeps: `python -m runners.report PATH... [--html FILE] [--csv] [--markdown]`."""

from __future__ import annotations

from runners.cli.commands import report

if __name__ == "__main__":
    report()

from __future__ import annotations

from pathlib import Path

import pytest

from runners.sweeps import process


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the jobs that are started."""
    started, sound = list[list[str]](), process.start

    def start(command: list[str], folder: Path, output: int) -> process.Process:
        started.append(command[3:])
        return sound(command, folder, output)

    monkeypatch.setattr(process, "start", start)
    return started

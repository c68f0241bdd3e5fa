"""Runs that are killed, or whose disk fails: nothing that was saved is lost, and every resume goes on."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.errors import InputError
from runners.files import checkpoint
from runners.files.status import state as state_of
from tools.faults.trials import Ended, Server
from tools.small_runs import SMALL_MODEL, outcome, write_dataset

GROUPS = (
    "killed at each change of a file",
    "killed at random",
    "killed again and again",
    "disk full",
    "disk read-only",
    "files limited in size",
)


@dataclass
class Figures:
    """What was found in a group of trials."""

    trials: int = 0
    faults: int = 0
    """Kills, or failures of the disk, that hit before the run was over."""
    begun: int = 0
    """Trials in which something had been saved by then."""
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)


class Trials:
    """Trials of one small run, each in a folder of its own, against what that run gives when nothing happens."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        data = write_dataset(folder / "data")
        self.overrides = [
            *("data=idx", f"data.path={data}", "data.val_examples=30", SMALL_MODEL, "epochs=2", "batch_size=16"),
            *("threads=1", "checkpoint.every_steps=3", "augment=shift", "kernels=reference", "run_dir=a"),
        ]
        whole = self._new("whole")
        server.run(self._new("first"), self.overrides)  # which loads what the next one has
        begun = time.perf_counter()
        self.whole = server.run(whole, self.overrides)
        self.seconds = time.perf_counter() - begun
        assert self.whole.code == 0, self.whole.err
        self.expected = outcome(whole / "a")

    def _new(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir()
        return path

    def examine(self, group: str, count: int, seed: int) -> Figures:
        """As many trials as asked for, or one for each change of a file where that is fewer."""
        figures = Figures()
        for number, faults in enumerate(self._plans(group, count, random.Random(seed))):
            self._trial(self._new(f"{group} {number}"), faults, figures)
        return figures

    def _plans(self, group: str, count: int, generator: random.Random) -> Iterator[list[dict[str, Any]]]:
        """Of each trial, the faults of the processes that follow one another in it."""
        changes = len(self.whole.changes)
        if group == "killed at random":
            yield from ([{"after": generator.uniform(0.2, 1.2) * self.seconds}] for _ in range(count))
        elif group == "killed again and again":
            for _ in range(count):
                yield [{"fault": "kill", "at": generator.randint(1, changes // 2)} for _ in range(5)]
        elif group == "files limited in size":
            size = (self.folder / "whole/a/checkpoints/last.pkl").stat().st_size
            yield from ([{"fault": "limit", "at": generator.randint(2000, size)}] for _ in range(count))
        else:
            fault = {"disk full": "full", "disk read-only": "read-only"}.get(group, "kill")
            chosen: Iterable[int] = range(1, changes + 1)
            if count < changes:
                chosen = sorted({*generator.sample(range(1, changes + 1), count), *self._behind_saves()})
            yield from ([{"fault": fault, "at": at}] for at in chosen)

    def _behind_saves(self) -> list[int]:
        """The changes that come next when a checkpoint has got its name: others are about to tell of it."""
        saves = re.compile(r"os.rename .*/\.(last|best)\.pkl\.[^/]*$")
        return [number + 1 for number, change in enumerate(self.whole.changes, start=1) if saves.match(change)]

    def _trial(self, place: Path, faults: Sequence[dict[str, Any]], figures: Figures) -> None:
        figures.trials += 1
        run, saved = place / "a", list[str]()
        for fault in faults:
            ended = self.server.run(place, self._arguments(run), **fault)
            saved += ended.saved
            figures.faults += ended.code != 0
            figures.wrong += [
                f"{place.name} {fault}: {problem}" for problem in self._problems(run, ended, saved, fault)
            ]
        figures.begun += bool(saved)
        ended = self.server.run(place, self._arguments(run))
        figures.resumed += ended.code == 0 and bool(saved)
        wrong = [f"resume: exit code {ended.code}, {ended.err[-300:]}"] if ended.code else []
        wrong += ["another outcome"] if not ended.code and outcome(run) != self.expected else []
        wrong += [f"{path.name} is left over" for path in run.rglob("*.new")]
        figures.wrong += [f"{place.name} {list(faults)}: {problem}" for problem in wrong]

    def _arguments(self, run: Path) -> Sequence[str]:
        """A resume; where no checkpoint has been saved there is nothing to resume, and the run begins anew."""
        if any((run / "checkpoints").glob("*.pkl")):
            return ["resume=a"]
        if run.exists():
            run.rename(run.with_name(f"before {len(list(run.parent.iterdir()))}"))
        return self.overrides

    def _problems(self, run: Path, ended: Ended, saved: Sequence[str], fault: dict[str, Any]) -> Iterator[str]:
        """What isn't as it should be behind a fault."""
        if fault.get("fault") in ("full", "read-only", "limit") and ended.code not in (1, 2):
            yield f"exit code {ended.code}"
        if ended.code > 0 and (ended.err.count("\n") > 3 or "Traceback" in ended.err or "error: " not in ended.err):
            yield f"it says {ended.err[-500:]}"
        state = state_of(run)
        finished = state == "done" and (run / "summary.json").exists()  # killed in what comes behind that
        if ended.code and state not in ("died", "failed", "unknown") and not finished:
            yield f"state {state}"
        for which in {line.split()[0] for line in saved}:
            step = max(int(line.split()[1]) for line in saved if line.startswith(which))
            try:
                found = checkpoint.load_run(run, which).step
            except InputError as error:
                yield f"{which} of step {step} is lost: {error}"
            else:
                if found < step:
                    yield f"{which} of step {step} is lost, there is one of step {found}"

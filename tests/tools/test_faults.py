"""The short form of `python -m tools.faults`."""

from __future__ import annotations

import gc
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.errors import CheckpointError
from runners.files import plain_pickle, safe_unpickler
from tests.forks import context
from tools.faults import contents, pickles, runs
from tools.faults.grammar import grammatical
from tools.faults.memory import Peak
from tools.faults.trials import Server


@pytest.fixture(autouse=True)
def forks() -> None:
    """What is examined in processes of their own is forked from one that has loaded everything."""
    context()


@pytest.mark.parametrize("group", pickles.GROUPS)
def test_no_file_executes_crashes_hangs_or_grows(group: str, tmp_path: Path) -> None:
    found = pickles.alone(pickles.outcome, group, 10_000, 0, tmp_path / "mark")
    assert found["wrong"] == []
    assert found["files"] >= (60 if "hand" in group else 10_000)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[runs.Trials]:
    with Server() as server:
        yield runs.Trials(server, tmp_path_factory.mktemp("trials"))


@pytest.mark.xdist_group("trials")
@pytest.mark.parametrize("group", runs.GROUPS)
def test_nothing_saved_is_lost_and_every_resume_goes_on(group: str, trials: runs.Trials) -> None:
    found = trials.examine(group, 3 if "again" in group else 6, seed=0)
    assert found.wrong == []
    assert found.resumed == found.begun
    assert found.faults


@pytest.mark.xdist_group("trials")
def test_what_is_written_is_on_the_disk_before_it_gets_its_name(trials: runs.Trials) -> None:
    """And the name behind it. A kill can't show this, only a power cut."""
    changes = trials.whole.changes
    renamed = [index for index, change in enumerate(changes) if change.startswith("os.rename") and ".new" in change]
    assert len(renamed) > 10
    for index in renamed:
        *_, before = (change for change in changes[:index] if not change.startswith("os.rename"))
        assert (before, changes[index + 1]) == ("fsync", "fsync")


def test_contents_that_make_no_sense_are_refused_in_plain_words_or_harmless(tmp_path: Path) -> None:
    found = pickles.alone(contents.outcome, 100, 0, tmp_path)
    assert found["wrong"] == []
    assert found["refused"] > 80
    assert found["read"] > 2


def test_memory_is_measured() -> None:
    """Of a process that had more at times before."""
    gc.collect()  # what other tests have left may be freed at any time, and is taken again before the peak grows
    assert len(b"x" * (400 << 20)) > 0
    peak = Peak()
    assert peak.grown() < 20 << 20
    assert len(b"x" * (300 << 20)) > 0
    assert peak.grown() > 290 << 20


def test_the_grammar_reaches_what_makes_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else thousands of files that are refused would say nothing."""
    reached: Counter[str] = Counter()

    def counted(name: str, action: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def act(machine: Any, argument: Any) -> None:
            action(machine, argument)
            here.add(name)

        return act

    for name in ("STACK_GLOBAL", "REDUCE", "BUILD", "BINGET"):
        monkeypatch.setitem(safe_unpickler.ACTIONS, name, counted(name, safe_unpickler.ACTIONS[name]))
    for data in grammatical(1000, 0):
        here: set[str] = set()
        try:
            safe_unpickler.decode(data)
            here.add("read")
        except CheckpointError as error:
            here.add(str(error))
        reached.update(here)
    assert all(reached[name] > 300 for name in ("STACK_GLOBAL", "REDUCE", "BUILD", "BINGET", "read"))
    assert reached["read"] < 700
    assert len(reached) > 30, "too few reasons to refuse a file"


def unsafe(mark: Path) -> dict[str, Any]:
    """What some files by hand do, with an unpickler that executes."""
    vars(plain_pickle)["parse"] = pickle.loads
    files = pickles.by_hand(mark)
    return pickles.examine((name, files[name]) for name in ("os.system", "open", "np.zeros"))


def test_the_watch_would_see_it(tmp_path: Path) -> None:
    """With an unpickler that executes, these files do something, and it is noticed."""
    found = pickles.alone(unsafe, tmp_path / "mark")
    assert "pickle.find_class" in found["executed"], found
    assert (tmp_path / "mark").exists()

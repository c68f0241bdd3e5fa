"""Where a run comes from, with real repositories."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from runners.cli import train
from runners.training import origin
from tests.runners.conftest import Run
from tests.runners.outcomes import status, stop_at
from tools.small_runs import outcome

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is missing")
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Runs git in a new repository with one commit of one file, `code.py`, whatever the user's settings."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "somebody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    folder = tmp_path / "repository"
    folder.mkdir()

    def run(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    run("init", "--quiet", "--initial-branch", "work")
    (folder / "code.py").write_text("first\n")
    run("add", "code.py")
    run("commit", "--quiet", "--message", "a file")
    return run


@pytest.fixture
def repository(git: Git, tmp_path: Path) -> Path:
    return tmp_path / "repository"


def test_a_clean_repository(git: Git, repository: Path) -> None:
    assert origin.state_of(repository) == origin.Changes(git("rev-parse", "HEAD"), "work", [])
    assert not origin.state_of(repository).dirty


def test_what_has_changed_is_kept_as_a_patch_that_git_applies(git: Git, repository: Path) -> None:
    (repository / "code.py").write_text("first\nsecond ä\n")
    (repository / "new name.py").write_text("not known\n")
    found = origin.state_of(repository)
    assert found.dirty
    assert list(found.untracked) == ["new name.py"]
    (repository / "code.py").write_text("first\n")
    (repository.parent / "changes.patch").write_bytes(found.patch)
    git("apply", "../changes.patch")
    assert (repository / "code.py").read_text() == "first\nsecond ä\n"


def test_a_long_patch_is_cut_at_a_line(git: Git, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "MAX_PATCH", 300)
    (repository / "code.py").write_text("".join(f"line {number}\n" for number in range(100)))
    found = origin.state_of(repository)
    assert not found.is_whole
    assert len(found.patch) <= 300
    assert found.patch.endswith(b"\n")
    assert b"+line 3\n" in found.patch


def test_a_commit_without_a_branch(git: Git, repository: Path) -> None:
    git("checkout", "--quiet", "--detach")
    found = origin.state_of(repository)
    assert (found.commit, found.branch) == (git("rev-parse", "HEAD"), None)


def test_nothing_is_known_without_a_repository_a_commit_or_git(
    tmp_path: Path, git: Git, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.resolve()))
    assert origin.state_of(empty) == origin.Changes()
    subprocess.run(["git", "-C", str(empty), "init", "--quiet"], check=True)
    assert origin.state_of(empty) == origin.Changes()
    monkeypatch.setenv("PATH", str(empty))
    assert origin.state_of(repository) == origin.Changes()


@pytest.fixture
def of_the_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run's code is in this repository."""
    monkeypatch.setattr(origin, "CODE", repository)
    origin.changes.cache_clear()
    yield repository
    origin.changes.cache_clear()


def test_a_run_says_where_it_comes_from(run: Run, git: Git, of_the_repository: Path) -> None:
    (of_the_repository / "code.py").write_text("second\n")
    assert run("run_dir=a", "epochs=1", "name=two words") == 0
    found = status("a")["origin"]
    assert (found["commit"], found["branch"], found["dirty"]) == (git("rev-parse", "HEAD"), "work", True)
    assert "-first\n+second\n" in Path("a/changes.patch").read_text()
    program, script, *again = shlex.split(found["command"])
    overrides = yaml.safe_load(Path("a/overrides.yaml").read_text())
    assert (program, script, again) == ("python", "run.py", [text for text in overrides if text != "run_dir=a"])
    assert train.main([*again, "run_dir=b"]) == 0
    assert outcome("b") == outcome("a")


def test_a_clean_run_has_no_patch(run: Run, of_the_repository: Path) -> None:
    assert run("run_dir=a", "epochs=1") == 0
    assert status("a")["origin"]["dirty"] is False
    assert not Path("a/changes.patch").exists()


def test_a_resume_says_where_it_comes_from_and_keeps_the_first_origin(
    run: Run, git: Git, of_the_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert run("run_dir=a", "epochs=1") == 143
    first = git("rev-parse", "HEAD")
    git("commit", "--quiet", "--allow-empty", "--message", "another")
    origin.changes.cache_clear()
    assert train.main(["resume=a"]) == 0
    content = json.loads(Path("a/status.json").read_text())
    assert content["origin"]["commit"] == first
    assert content["resumed"][0]["commit"] == git("rev-parse", "HEAD")

"""Where a run comes from: the commit of the code, what had changed since, the host, and the command that repeats it."""

from __future__ import annotations

import functools
import platform
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.errors import program

CODE = Path(__file__).parents[2]
MAX_PATCH = 1 << 20
"""Bytes of the changes that are kept."""

MAX_UNTRACKED = 100
SECONDS = 5
"""What git may take; a run starts without its answer if it takes longer."""

PLACES = "run_dir=", "sweep_dir="
"""What the command that repeats a run leaves out: the new run has a directory of its own."""


@dataclass(frozen=True)
class Changes:
    """The state of a repository: its commit and branch, and what isn't in the commit.

    `untracked`: names of files that git doesn't know, which aren't in the patch.
    """

    commit: str | None = None
    branch: str | None = None
    untracked: Sequence[str] = field(default_factory=tuple)
    patch: bytes = b""
    is_whole: bool = True

    @property
    def dirty(self) -> bool:
        return bool(self.patch or self.untracked)


def origin(overrides: Sequence[str]) -> dict[str, Any]:
    """What status.json says of where a run with these overrides comes from; null is unknown."""
    found = changes()
    again = [shlex.quote(text) for text in overrides if not text.startswith(PLACES)]
    return {
        "commit": found.commit,
        "branch": found.branch,
        "dirty": None if found.commit is None else found.dirty,
        "patch_is_whole": found.is_whole,
        "untracked": list(found.untracked[:MAX_UNTRACKED]),
        "host": platform.node(),
        "command": " ".join([program("train"), *again]),
    }


@functools.cache
def changes() -> Changes:
    """The state of the repository of the code that this process runs, or, if it was installed, of its directory."""
    return state_of(CODE if (CODE / ".git").exists() else Path.cwd())


def state_of(folder: Path) -> Changes:
    """The state of the repository that a folder is in."""
    lines = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=normal").decode(errors="replace")
    heads = dict(line.removeprefix("# branch.").split(" ", 1) for line in lines.splitlines() if line.startswith("# b"))
    commit = heads.get("oid")
    if commit is None or commit == "(initial)":
        return Changes()
    untracked = [line.removeprefix("? ") for line in lines.splitlines() if line.startswith("? ")]
    patch = b""
    if any(line[:2] in ("1 ", "2 ", "u ") for line in lines.splitlines()):
        patch = _git(folder, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    whole = len(patch) <= MAX_PATCH
    kept = patch if whole else patch[: patch.rfind(b"\n", 0, MAX_PATCH) + 1]
    branch = heads.get("head")
    return Changes(commit, None if branch == "(detached)" else branch, untracked, kept, whole)


def _git(folder: Path, *arguments: str) -> bytes:
    """What a git command prints; nothing if there is no git, or no repository."""
    command = ["git", "-C", str(folder), "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout

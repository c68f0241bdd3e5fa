"""Download files from their official addresses: verified and complete or not at all, once for several processes."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from time import monotonic
from typing import IO
from urllib.error import HTTPError
from urllib.request import urlopen

from filelock import FileLock
from tqdm import tqdm

from runners.errors import DataError, printable
from runners.signals import raising_signals

TIMEOUT = 30.0
"""Give up on a server that sends nothing for this many seconds, or less than the minimum rate."""
MIN_BYTES_PER_SECOND = 1000
CHUNK = 1 << 16


@dataclass(frozen=True)
class Remote:
    """A file's official address, its size in bytes and its SHA-256."""

    address: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]


class FetchFailed(Exception):
    """Why a download failed."""


def cache_folder(name: str) -> Path:
    """The default folder of a dataset, unless `data.path` is given: below $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cnn-from-scratch" / name


def fetch(remotes: Sequence[Remote], folder: Path) -> None:
    """Download the files that aren't in the folder, which is created if necessary.

    Raises DataError if one can't be downloaded or written, with instructions to do it manually; files that are already
    complete are kept.
    """
    missing = [remote for remote in remotes if not (folder / remote.name).exists()]
    if not missing:
        return
    with raising_signals(), _locked(folder):
        for remote in missing:
            if (folder / remote.name).exists():  # another process had the lock before
                continue
            try:
                _download(remote, folder / remote.name)
            except FetchFailed as reason:
                names = ", ".join(remote.name for remote in missing)
                raise DataError(
                    f"{remote.address} can't be downloaded: {printable(reason)}\n"
                    f"put these files into {folder}, or into another folder and give data.path=FOLDER:\n{names}"
                ) from None


def verify(remote: Remote, file: Path) -> None:
    """Raise DataError if a file isn't the official one."""
    if not file.is_file():
        raise DataError(f"{file}: not a file")
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(CHUNK):
            digest.update(piece)
    verify_digest(digest.hexdigest(), remote.sha256, file)


def verify_digest(found: str, expected: str, file: Path) -> None:
    """Raise DataError if the SHA-256 of a file, or of its unpacked content, isn't the official one."""
    if found != expected:
        raise DataError(f"{file}: not the official file, its SHA-256 is {found}, not {expected}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; others wait. The empty lock file is kept, as removing it would be a race."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DataError(f"data.path: {folder} can't be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def _download(remote: Remote, target: Path) -> None:
    """Stream into a file next to the target, and rename it once it is verified."""
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            _stream(remote, file)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power failure could leave the final name with no content
        part.replace(target)
    except OSError as error:
        raise DataError(f"{error.filename or target}: can't be written: {error.strerror}") from None
    finally:
        with suppress(OSError):  # missing, or not ours, which has been reported
            part.unlink()


def _stream(remote: Remote, file: IO[bytes]) -> None:
    """Write a download to a file. Raises FetchFailed if it isn't the official file, OSError if writing fails."""
    digest, received = hashlib.sha256(), 0
    with tqdm(
        total=remote.size, desc=remote.name, unit="B", unit_scale=True, disable=None, leave=False, file=sys.stderr
    ) as bar:
        for piece in _pieces(remote):
            received += len(piece)
            if received > remote.size:
                raise FetchFailed(f"it is longer than the official file's {remote.size:,} bytes")
            file.write(piece)
            digest.update(piece)
            bar.update(len(piece))
    if received < remote.size:
        raise FetchFailed(f"it ended after {received:,} of {remote.size:,} bytes")
    if digest.hexdigest() != remote.sha256:
        raise FetchFailed(f"its SHA-256 is {digest.hexdigest()}, the official file's {remote.sha256}")


def _pieces(remote: Remote) -> Iterator[bytes]:
    """A download in pieces. Raises FetchFailed for all network errors."""
    try:
        with urlopen(remote.address, timeout=TIMEOUT) as response:
            since, received = monotonic(), 0
            while piece := response.read1(CHUNK):  # `read` would wait for a whole chunk
                yield piece
                received += len(piece)
                if monotonic() - since >= TIMEOUT:
                    if received < MIN_BYTES_PER_SECOND * TIMEOUT:
                        raise FetchFailed(f"the server sends fewer than {MIN_BYTES_PER_SECOND:,} bytes per second")
                    since, received = monotonic(), 0
    except HTTPError as error:
        error.close()
        raise FetchFailed(str(error)) from None
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", error)  # urllib wraps the system's error
        text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise FetchFailed(" ".join(text.split())) from None

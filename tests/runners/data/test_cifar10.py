"""CIFAR-10's files, unpacked or in their archive: what is read, and what is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.cli import evaluate
from runners.data.sources import cifar10
from tests.runners.conftest import Run
from tests.runners.data.small_data import NOWHERE, TEN_CLASSES, cifar_archive, cifar_files, remote, write

CIFAR = ["data=cifar10", "data.val_examples=20", TEN_CLASSES, "epochs=1"]


def test_from_cifar10_to_an_evaluation(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "here" / cifar10.FOLDER, cifar_files(monkeypatch)).parent
    assert run(*CIFAR, f"data.path={folder}", "run_dir=first") == 0
    assert evaluate.main(["first"]) == 0
    assert "automobile" in capsys.readouterr().out
    assert evaluate.main(["first", "data=mnist"]) == 2
    assert "the test images are [1, 28, 28], but the network takes [3, 32, 32]" in capsys.readouterr().err


Change = Callable[[dict[str, bytes]], object]

BATCHES: dict[str, tuple[Change, str]] = {
    "cut short": (lambda files: files.update({"data_batch_2.bin": files["data_batch_2.bin"][:-1]}), "it ends after"),
    "empty": (
        lambda files: files.update({"test_batch.bin": b""}),
        "test_batch.bin: it ends after 0 bytes, but 20 images take",
    ),
    "too long": (
        lambda files: files.update({"test_batch.bin": files["test_batch.bin"] + b"x"}),
        "it is longer, but 20",
    ),
    "a class too many": (
        lambda files: files.update({"data_batch_5.bin": b"\x0a" * len(files["data_batch_5.bin"])}),
        "data_batch_5.bin: it has labels up to 10, but the classes are 0 to 9",
    ),
    "missing": (lambda files: files.pop("data_batch_4.bin"), "data_batch_4.bin"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fault", BATCHES)
def test_bad_batches(
    fault: str,
    packed: bool,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a folder, and in an archive with the right checksum."""
    files = cifar_files(monkeypatch)
    change, expected = BATCHES[fault]
    change(files)
    if packed:
        write(tmp_path / "here", {cifar10.ARCHIVE.name: cifar_archive(monkeypatch, files)})
    else:
        write(tmp_path / "here" / cifar10.FOLDER, files)
    bad(run, tmp_path / "here", capsys, expected)


def bad(run: Run, folder: Path, capsys: pytest.CaptureFixture[str], expected: str) -> None:
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    assert run(*CIFAR, f"data.path={folder}") == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {folder}/")
    assert expected in err
    assert len(err.splitlines()) == 1
    assert out == ""
    assert [path.name for path in Path().iterdir()] == [folder.name]
    assert before == {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_bad_archives(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = cifar_archive(monkeypatch, cifar_files(monkeypatch))
    folder = tmp_path / "here"
    for wrong in (b"", content[:-1], content + b"x", b"<html>"):
        write(folder, {cifar10.ARCHIVE.name: wrong})
        told = f"its SHA-256 is {remote('', '', wrong).sha256}, not {cifar10.ARCHIVE.sha256}"
        bad(run, folder, capsys, f"{cifar10.ARCHIVE.name}: not the official file, {told}\n")
    for right in (b"", content[: len(content) // 2], b"no archive", gzip.compress(b"no archive" * 100)):
        write(folder, {cifar10.ARCHIVE.name: right})
        monkeypatch.setattr(cifar10, "ARCHIVE", remote(NOWHERE, cifar10.ARCHIVE.name, right))
        bad(run, folder, capsys, f"{cifar10.ARCHIVE.name}: ")
    (folder / cifar10.ARCHIVE.name).unlink()
    (folder / cifar10.ARCHIVE.name).mkdir()
    bad(run, folder, capsys, f"{cifar10.ARCHIVE.name}: not a file")


def test_links_in_an_archive_lead_nowhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cifar_files(monkeypatch)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in [*cifar10.TRAIN, cifar10.TEST]:
            member = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    content = packed.getvalue()
    monkeypatch.setattr(cifar10, "ARCHIVE", remote(NOWHERE, cifar10.ARCHIVE.name, content))
    folder = write(tmp_path / "here", {cifar10.ARCHIVE.name: content})
    bad(run, folder, capsys, "it has no file cifar-10-batches-bin/data_batch_1.bin")

"""Datasets that are downloaded: from a server that behaves, from one that doesn't, and put there by hand."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch

from runners.cli import evaluate
from runners.data import download
from runners.data.download import Remote, fetch
from runners.data.sources import cifar10, fashion_mnist
from runners.data.sources.cifar10 import Cifar10
from runners.data.sources.fashion_mnist import FashionMnist
from tests.forks import context
from tests.runners.conftest import Run
from tests.runners.data.small_data import NOWHERE, TEN_CLASSES, cifar_archive, cifar_files, fashion_files, remote, write

ROOT = Path(__file__).parents[3]


class Site:
    """A server on this machine: what it has, what it does with one file, and what it was asked for."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        self.files: dict[str, bytes] = {}
        self.behaviour: dict[str, Callable[[BaseHTTPRequestHandler, bytes], None]] = {}
        self.asked: list[str] = []
        self.go_on = threading.Event()

    def give(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path[1:]
        self.asked.append(name)
        self.behaviour.get(name, send)(handler, self.files[name])

    def send_half_and_wait(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        start(handler, len(content))
        handler.wfile.write(content[: len(content) // 2])
        self.go_on.wait(60)
        handler.wfile.write(content[len(content) // 2 :])


def start(handler: BaseHTTPRequestHandler, length: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()


def send(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    start(handler, len(content))
    handler.wfile.write(content)


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *arguments: object) -> None:
        """Clients leave in the middle of a file here, on purpose."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.give(self)

        def log_message(self, *arguments: object) -> None:
            pass

    server = QuietServer(("127.0.0.1", 0), Handler)
    served = Site(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    served.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that datasets are downloaded to; nothing goes through a proxy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "cnn-from-scratch"


@pytest.fixture
def clothes(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site, with the files of fashion_mnist on it."""
    site.files = fashion_files(monkeypatch, site.address)
    return site


FASHION = ["data=fashion_mnist", "data.val_examples=20", TEN_CLASSES, "epochs=1"]
CIFAR = ["data=cifar10", "data.val_examples=20", TEN_CLASSES, "epochs=1"]


def held(folder: Path) -> set[str]:
    """What lies in a folder, but for the empty file of the lock."""
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_files_are_fetched_once(clothes: Site, cache: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*FASHION, "run_dir=first") == 0
    assert capsys.readouterr().err == ""
    assert clothes.asked == list(clothes.files)
    assert held(cache / "fashion_mnist") == set(clothes.files)
    assert evaluate.main(["first"]) == 0
    assert "Ankle boot" in capsys.readouterr().out
    assert clothes.asked == list(clothes.files)


def test_only_what_is_missing_is_fetched(clothes: Site, tmp_path: Path) -> None:
    by_hand = "train-images-idx3-ubyte"
    write(tmp_path / "here", {by_hand: gzip.decompress(clothes.files[f"{by_hand}.gz"])})
    FashionMnist(str(tmp_path / "here"), val_examples=20).load()
    assert clothes.asked == [name for name in clothes.files if not name.startswith(by_hand)]


def broken_off(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    start(handler, len(content))
    handler.wfile.write(content[:100])


def changed(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    send(handler, content[:-1] + bytes([content[-1] ^ 1]))


def login_page(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    send(handler, b"<html>Please pay for this network</html>")


def endless(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(content)
    except OSError:
        pass  # the other side has had enough


def silent(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    start(handler, len(content))
    time.sleep(1)


def dripping(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    start(handler, len(content))
    try:
        for byte in content[:100]:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.05)
    except OSError:
        pass  # the other side has had enough


def no_http(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.wfile.write(b"220 mail.example.org ESMTP\r\n")


def not_found(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_error(404)


def elsewhere(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(302)
    handler.send_header("Location", "file:///etc/passwd")
    handler.end_headers()


NETWORKS = {
    "not found": (not_found, "HTTP Error 404: Not Found"),
    "broken off": (broken_off, "it ended after 100 of "),
    "another file": (changed, "its SHA-256 is "),
    "a login page": (login_page, "it ended after 40 of "),
    "without an end": (endless, "it is longer than the official file's "),
    "silent": (silent, "timed out"),
    "a byte now and then": (dripping, "the server sends fewer than 1,000 bytes per second"),
    "no web server": (no_http, "220 mail.example.org ESMTP"),
    "led astray": (elsewhere, "Redirection to url 'file:///etc/passwd' is not allowed"),
}


@pytest.mark.parametrize("fault", NETWORKS)
def test_bad_networks(
    fault: str,
    clothes: Site,
    cache: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The third file fails: the first two stay, and a second start asks for the others alone."""
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    *before, third, last = clothes.files
    behaviour, expected = NETWORKS[fault]
    clothes.behaviour[third] = behaviour
    assert run(*FASHION) == 2
    out, err = capsys.readouterr()
    what, where, names = err.splitlines()
    folder = cache / "fashion_mnist"
    assert what.startswith(f"error: {clothes.address}/{third} can't be downloaded: ")
    assert expected in what
    assert where == f"error: put these files into {folder}, or into another folder and give data.path=FOLDER:"
    assert names == f"error: {', '.join(clothes.files)}"
    assert held(folder) == set(before)
    assert out == ""
    assert [path.name for path in Path().iterdir()] == ["cache"]
    clothes.behaviour.clear()
    FashionMnist(val_examples=20).load()
    assert clothes.asked == [*before, third, third, last]


def test_a_wrong_checksum_is_told_with_the_right_one(
    clothes: Site, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    official = fashion_mnist.FILES["train", "images"]
    content = clothes.files[official.name][::-1]
    clothes.files[official.name] = content
    assert run(*FASHION) == 2
    found = remote("", "", content).sha256
    assert f"its SHA-256 is {found}, the official file's {official.sha256}\n" in capsys.readouterr().err


@pytest.mark.parametrize(("data", "count"), [(FASHION, 4), (CIFAR, 1)])
def test_no_network(
    data: list[str],
    count: int,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fashion_files(monkeypatch)
    cifar_archive(monkeypatch, cifar_files(monkeypatch))
    assert run(*data, f"data.path={tmp_path / 'here'}") == 2
    what, where, names = capsys.readouterr().err.splitlines()
    assert what.startswith(f"error: {NOWHERE}/")
    assert what.endswith(" can't be downloaded: Connection refused")
    assert f"put these files into {tmp_path / 'here'}, " in where
    assert len(names.split(", ")) == count
    assert held(tmp_path) == {"here"}
    assert held(tmp_path / "here") == set()


def test_config_faults_come_before_the_network(clothes: Site, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for data in (FASHION, CIFAR):
        others = [override for override in data if override != TEN_CLASSES]
        assert run(*others, "model.layers=[flatten,{linear:{out_features:9}}]") == 2
        assert "the last, linear_1, gives [9], but the data have 10 classes" in capsys.readouterr().err
    assert clothes.asked == []
    assert list(Path().iterdir()) == []


def test_a_disk_without_space(clothes: Site, cache: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit on the size of files stands in for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        code = run(*FASHION)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    file = cache / "fashion_mnist" / "train-images-idx3-ubyte.gz"
    assert capsys.readouterr().err == f"error: {file}: can't be written: File too large\n"
    assert held(file.parent) == set()


def test_a_folder_where_the_file_is_to_grow(
    clothes: Site, cache: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = cache / "fashion_mnist" / ".train-images-idx3-ubyte.gz.part"
    in_the_way.mkdir(parents=True)
    assert run(*FASHION) == 2
    assert capsys.readouterr().err == f"error: {in_the_way}: can't be written: Is a directory\n"
    assert held(in_the_way.parent) == {in_the_way.name}


def test_a_folder_that_cannot_be_written(clothes: Site, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*FASHION, "data.path=/proc/nothing") == 2
    assert capsys.readouterr().err == "error: data.path: /proc/nothing can't be written: No such file or directory\n"
    assert clothes.asked == []


def test_files_put_there_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed by another hand, or not at all; nothing is written where nothing is missing."""
    files = fashion_files(monkeypatch)
    plain = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in files.items()}
    folder = write(tmp_path / "plain", plain)
    expected = FashionMnist(str(folder), val_examples=20).load().fingerprint
    folder = write(tmp_path / "packed", {f"{name}.gz": gzip.compress(plain[name], 1) for name in plain})
    assert FashionMnist(str(folder), val_examples=20).load().fingerprint == expected
    assert not (folder / ".lock").exists()


def test_another_file_put_there_by_hand_is_refused_and_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = fashion_files(monkeypatch)
    name = "t10k-labels-idx1-ubyte.gz"
    plain = gzip.decompress(files[name])
    files[name] = gzip.compress(plain[:-1] + b"\1")
    folder = write(tmp_path / "here", files)
    assert run(*FASHION, f"data.path={folder}") == 2
    found = remote("", "", plain[:-1] + b"\1").sha256
    official = fashion_mnist.UNPACKED["t10k", "labels"]
    told = f"{folder / name}: not the official file, its SHA-256 is {found}, not {official}"
    assert capsys.readouterr().err == f"error: {told}\n"
    assert (folder / name).read_bytes() == files[name]
    assert held(tmp_path) == {"here"}


def fetch_when_both_are_ready(gate: Barrier, wanted: Remote, folder: Path) -> None:
    gate.wait(60)
    fetch([wanted], folder)


def test_two_processes_fetch_once(site: Site, tmp_path: Path) -> None:
    site.files["x.bin"] = bytes(range(256)) * 1000
    site.behaviour["x.bin"] = site.send_half_and_wait
    wanted = remote(site.address, "x.bin", site.files["x.bin"])
    gate = context().Barrier(3)
    arguments = gate, wanted, tmp_path / "here"
    both = [context().Process(target=fetch_when_both_are_ready, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    gate.wait(60)
    time.sleep(0.3)  # for the second one to come to the lock
    site.go_on.set()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert site.asked == ["x.bin"]
    assert (tmp_path / "here" / "x.bin").read_bytes() == site.files["x.bin"]
    assert held(tmp_path / "here") == {"x.bin"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_download(
    number: signal.Signals, clothes: Site, cache: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes in the middle of the third file."""
    *before, third, _ = clothes.files

    def send_half_and_a_signal(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        start(handler, len(content))
        handler.wfile.write(content[: len(content) // 2])
        os.kill(os.getpid(), number)
        clothes.go_on.wait(60)

    clothes.behaviour[third] = send_half_and_a_signal
    assert run(*FASHION) == 128 + number
    assert capsys.readouterr().err == f"interrupted by {number.name}\n"
    assert held(cache / "fashion_mnist") == set(before)
    assert [path.name for path in Path().iterdir()] == ["cache"]


def test_cifar10_is_read_as_its_authors_wrote_it(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = cifar_files(monkeypatch)
    site.files[cifar10.ARCHIVE.name] = cifar_archive(monkeypatch, files, site.address)
    train, test = Cifar10().read()
    assert site.asked == ["cifar-10-binary.tar.gz"]
    assert held(cache / "cifar10") == {"cifar-10-binary.tar.gz"}
    assert (train.images.shape, test.images.shape) == ((100, 3, 32, 32), (20, 3, 32, 32))
    record = files["data_batch_3.bin"][7 * 3073 : 8 * 3073]  # a class, then rows of red, of green and of blue
    assert train.targets[47] == record[0]
    assert train.images[47, 2, 5, 9] == record[1 + 2 * 1024 + 5 * 32 + 9]
    assert test.targets.tolist() == list(files["test_batch.bin"][::3073])
    write(cache / "cifar10" / cifar10.FOLDER, files)
    (cache / "cifar10" / cifar10.ARCHIVE.name).unlink()
    for found, expected in zip(Cifar10().read(), (train, test), strict=True):
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.targets, expected.targets)
    assert len(site.asked) == 1

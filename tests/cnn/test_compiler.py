"""Kernels are compiled again if their sources change, or if files on the disk are lost or damaged."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from cnn.ops import compiling, threads
from cnn.ops.cpu.codegen import compiler, emitter
from cnn.ops.cpu.kernels import activation, norm, window
from cnn.ops.helpers import compiling_together
from cnn.ops.threads import available_threads


@pytest.mark.parametrize(
    ("changed", "stale", "good"),
    [
        (emitter, [emitter, norm, window], [activation]),
        (window, [window, norm], [activation]),
    ],
)
def test_kernels_of_changed_sources_are_compiled_again(
    changed: ModuleType, stale: list[ModuleType], good: list[ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = compiler._fingerprint.__wrapped__
    monkeypatch.setattr(compiler, "_fingerprint", fingerprint)  # without the memory of earlier answers
    before = {module: fingerprint(module) for module in [*stale, *good]}
    source = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda module: source(module) + "# new" * (module is changed))
    assert all(fingerprint(module) != before[module] for module in stale)
    assert all(fingerprint(module) == before[module] for module in good)


def use_a_kernel(cache: Path) -> None:
    """In a process of its own, which keeps what it compiles in this folder."""
    script = "import torch; from cnn import ops; print(ops.relu(torch.tensor([-1.0, 2.0])).tolist())"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.stdout, done.stderr) == ("[0.0, 2.0]\n", "")


@pytest.mark.parametrize("share", [0.5, pytest.param(0, marks=pytest.mark.long)])
def test_damaged_files_of_compiled_kernels_are_made_again(share: float, tmp_path: Path) -> None:
    """Of each file, no more than a share of its bytes is left."""
    use_a_kernel(tmp_path)
    damaged = {file: file.read_bytes() for file in tmp_path.rglob("*.nbc")}
    assert damaged
    for file, content in damaged.items():
        file.write_bytes(content[: int(len(content) * share)])
    use_a_kernel(tmp_path)
    made = {file: file.read_bytes() for file in tmp_path.rglob("*.nbc")}
    assert all(len(made[file]) >= len(content) for file, content in damaged.items())


@pytest.mark.long
def test_where_nothing_can_be_kept_each_process_compiles(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    use_a_kernel(tmp_path / "file" / "folder")


def test_each_signature_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Whichever process keeps it, in whatever order; those of other sources of the function are removed."""
    one, other = (compiler._Files(str(tmp_path), "module.function-1.py3", None) for _ in range(2))
    one.save(("float32", "sources"), "code of float32")
    other.save(("float64", "sources"), "code of float64")
    for files in (one, other):
        assert files.load(("float32", "sources")) == "code of float32"
        assert files.load(("float64", "sources")) == "code of float64"
        assert files.load(("float16", "sources")) is None
    (tmp_path / "module.function-12.py3.1.nbc").touch()  # another function's
    other.save(("float32", "changed"), "new code")
    assert one.load(("float32", "changed")) == "new code"
    assert one.load(("float64", "sources")) is None
    assert len(list(tmp_path.iterdir())) == 2


STEP = """
import os
import torch
from numba.core import event
from cnn import ops
from cnn.ops import compiling
from cnn import build_model
from cnn.losses import CrossEntropy
from runners.training.capturing import Steps
from tests.classifier import ONLY, classifier, examples

compiled, done = [], []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(event.data["dispatcher"])
    def on_end(self, event): pass
event.register("numba:compile", Listener())
ops.before_compiling(lambda: done.append("announced"))
ops.set_threads(THREADS)
model = build_model({"layers": ["flatten", {"linear": {"out_features": 4}}]}, (1, 5, 5), seed=1, dtype=torch.float64)
sums = Steps(classifier(model, CrossEntropy())).take([examples(6)], ONLY)
try:
    os.waitpid(-1, os.WNOHANG)
    print("processes are left")
except ChildProcessError:
    kept = sum(kernel.targetoptions.get("no_cpython_wrapper") is None for kernel in compiled)
    print(done, kept, sums.means("train")["train/loss"], len(compiling._calls))
"""


def step_of(threads: int, cache: Path) -> list[str]:
    """Of a first training step, in a process of its own: what was announced, the number of kernels that the process
    compiled itself, the loss, and the number of announcements that are still waiting."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", STEP.replace("THREADS", str(threads))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(available_threads() < 2 or sys.platform != "linux", reason="nobody helps")
def test_other_processes_compile_a_part_of_what_a_step_needs(tmp_path: Path) -> None:
    announced, compiled, loss, waiting = step_of(2, tmp_path / "shared")
    files = len(list((tmp_path / "shared").rglob("*.nbc")))
    assert 0 < int(compiled) < files
    assert (announced, waiting) == ("['announced']", "0")
    assert step_of(2, tmp_path / "shared") == ["[]", "0", loss, "1"]
    assert step_of(1, tmp_path / "alone") == ["['announced']", str(files), loss, "0"]


@pytest.mark.skipif(available_threads() < 2 or sys.platform != "linux", reason="nobody helps")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_helps_ends_with_the_process_that_it_helps(number: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", STEP.replace("THREADS", "2")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (helpers := children.read_text().split()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        process.wait(60)
        for helper in helpers:
            status = Path(f"/proc/{helper}/status")
            with suppress(FileNotFoundError):
                while "zombie" not in status.read_text():
                    time.sleep(0.05)


def test_work_is_done_without_help_where_none_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process isn't allowed, somebody else compiles, or what is compiled can't be kept."""
    started: list[int] = []

    def fork() -> int:
        started.append(1)
        raise BlockingIOError

    monkeypatch.setattr("os.fork", fork)
    monkeypatch.setattr(threads, "most_threads", lambda: 3)
    with compiling_together(lambda: None):
        compiling.compiling()
    assert len(started) == (sys.platform == "linux")
    with compiling_together(lambda: None), ThreadPoolExecutor(1) as others:
        others.submit(compiling.compiling).result()
    monkeypatch.setattr(compiling, "kept", False)
    with compiling_together(lambda: None):
        compiling.compiling()
    assert len(started) == (sys.platform == "linux")


def test_what_may_raise_waits_for_the_end_of_a_compilation() -> None:
    done: list[str] = []
    compiling.unless_compiling(lambda: done.append("at once"))
    compiling.started()
    compiling.started()  # of a helper, within
    compiling.unless_compiling(lambda: done.append("later"))
    compiling.ended()
    assert done == ["at once"]
    compiling.ended()
    assert done == ["at once", "later"]
    compiling.started()
    compiling.ended()
    assert done == ["at once", "later"]

"""tools/gpu_check without a GPU: its arguments, its parts as commands, and what is reported of them."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tools import gpu_parts
from tools.gpu_parts import NAMES, Part, Report, check, outcomes, python

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "gpu_check"
Found = dict[str, Any]


def gpu_check(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(["bash", str(SCRIPT), *arguments], cwd=folder, env=given, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu() -> None:
    done = gpu_check()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: there is no GPU here that {sys.executable}'s torch can use\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--nothing"], "--nothing is not an argument of gpu_check, see --help"),
        (["--wheels"], "--wheels needs a value"),
        (["--wheels", "/there/is/none"], "--wheels: there is no folder /there/is/none"),
        (["--dry-run", "--only", "tests,x"], "argument --only: x is none of versions, warm, "),
        (["--dry-run", "--minutes", "0"], "argument --minutes: 0 is not allowed, give minutes > 0"),
    ],
)
def test_bad_arguments(arguments: list[str], problem: str) -> None:
    done = gpu_check(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr


def test_help_names_every_part_in_its_order(tmp_path: Path) -> None:
    done = gpu_check("--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    listed = done.stdout.partition("in this order")[2].partition("--minutes")[0]
    found = re.findall(rf"(?<= )({'|'.join(NAMES)})\b(?=,|  |\n)", listed)
    assert [*dict.fromkeys(found)] == [*NAMES]


def test_a_dry_run_prints_the_commands(tmp_path: Path) -> None:
    done = gpu_check("--dry-run", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    commands = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith(sys.executable)]
    assert len(commands) == sum(len(part.commands) for part in gpu_parts.parts("").values())
    for _, *arguments in commands:
        if arguments[0] == "-m" and arguments[1] != "pytest":
            assert (ROOT / arguments[1].replace(".", "/")).with_suffix(".py").is_file()
        files = [each for each in arguments if each.endswith(".py")]
        assert all((ROOT / file).is_file() for file in files)


FAKE = """#!/bin/bash
echo "$@" >> calls
[[ $1 == - ]] && echo hydra-core omegaconf
[[ "$1 $2" == "-m pip" && ${@: -1} == omegaconf ]] && exit 1
[[ "$1 $2" == "-m pip" ]] && cp -r "$FOUND" "${@: -2:1}"
[[ $2 == tools.gpu_parts ]] && ls "${PYTHONPATH%%:*}" && exit 1
exit 0
"""


def test_what_is_missing_is_installed_into_a_folder_of_its_own(tmp_path: Path) -> None:
    """A Python that writes down what it is asked to do."""
    fake, wheels = tmp_path / "fake", tmp_path / "wheels"
    fake.write_text(FAKE.replace(">> calls", f">> {tmp_path / 'calls'}"))
    fake.chmod(0o755)
    wheels.mkdir()
    (tmp_path / "found").mkdir()
    out = tmp_path / "out"
    given = ["--wheels", "wheels", "--only", "tests", "--out", "out"]
    done = gpu_check(*given, folder=tmp_path, PYTHON=str(fake), FOUND=str(tmp_path / "found"))
    assert (done.returncode, done.stdout) == (1, "found\n")
    assert done.stderr == f"warning: omegaconf is missing, and there is no wheel of it in {wheels}\n"
    asked, _, install, another, last = (tmp_path / "calls").read_text().splitlines()
    assert "torch.cuda.is_available" in asked
    assert "--no-index --no-deps " in install
    assert f" --find-links {wheels} --target " in install
    assert (install.split()[-1], another.split()[-1]) == ("hydra-core", "omegaconf")
    assert last == f"-m tools.gpu_parts --only tests --out {out}"
    assert not Path(install.split(" --target ")[1].split()[0]).exists()


def reported(part: Part, seconds: float = 60.0) -> tuple[bool, list[Found]]:
    rows: list[Found] = []
    return check("some", part, seconds, rows.append), rows


def test_rows_of_a_part_are_reported_with_its_name() -> None:
    code = "print('text'); print('{\"batch\": 128}'); print('[1]')"
    well, (row, last) = reported(Part(60, [python("-c", code)]))
    assert well
    assert row == {"part": "some", "batch": 128}
    assert last.items() >= {"part": "some", "ok": True, "exit": [0], "timed_out": False}.items()
    assert "tail" not in last


def test_a_part_that_fails_is_reported_with_the_end_of_its_output() -> None:
    """And its other commands run."""
    commands = [python("-c", "raise SystemExit('no such kernel')"), python("-c", "print('{}')")]
    well, (_, last) = reported(Part(60, commands))
    assert not well
    assert (last["exit"], last["tail"]) == ([1, 0], "no such kernel\n{}\n")


def test_a_part_that_takes_too_long_is_killed_with_its_children() -> None:
    commands = [["bash", "-c", "echo '{\"a\": 1}'; sleep 600 & sleep 600"], python("-c", "print('never')")]
    well, (row, last) = reported(Part(60, commands), 1.0)
    assert not well
    assert row == {"part": "some", "a": 1}
    assert (last["exit"], last["timed_out"]) == ([None], True)
    assert "never" not in last["tail"]


OUTPUT = """
[gw0] [ 20%] PASSED tests/a.py::test_a[x y, z]
[gw1] [ 40%] FAILED tests/a.py::test_b[convolution 3x3, 1 x 10 to 10] \n[gw1] [ 60%] SKIPPED tests/a.py::test_c
[gw0] [ 80%] ERROR tests/a.py::test_d
[gw0] [100%] PASSED tests/a.py::test_e
FAILED tests/a.py::test_b[convolution 3x3, 1 x 10 to 10] - AssertionError: {'y': inf}
"""


def test_outcomes_of_tests_that_may_have_been_cut_off() -> None:
    assert outcomes(OUTPUT) == {
        **{"passed": 2, "failed": 1, "error": 1, "skipped": 1},
        "wrong": {
            "tests/a.py::test_b[convolution 3x3, 1 x 10 to 10]": "AssertionError: {'y': inf}",
            "tests/a.py::test_d": "",
        },
    }
    assert outcomes("no tests here") == {}


def test_seconds_of_a_training(tmp_path: Path) -> None:
    summary = {"test": {"test/accuracy": 0.991}, "best": {"epoch": 2}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    lines = ["epoch,step_seconds,seconds,images_per_second", "1,0.5,0.75,1000.4", "2,0.25,0.5,2000"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    well, (row, _) = reported(Part(60, [python("-c", "")], [str(tmp_path)]))
    assert well
    assert row.items() >= {"run": tmp_path.name, "test_accuracy": 0.991, "training_seconds": 0.75}.items()
    assert (row["epoch_seconds"], row["images_per_second"]) == ([0.75, 0.5], [1000, 2000])
    _, (row, _) = reported(Part(60, [python("-c", "")], [str(tmp_path / "none")]))
    assert row["failed"].startswith("FileNotFoundError")


def test_parts_run_in_their_order_until_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    seen: list[str] = []

    def checked(name: str, part: Part, seconds: float, report: Report) -> bool:
        seen.append(name)
        assert 0 < seconds <= part.seconds
        return name != "tests"

    monkeypatch.setattr(gpu_parts, "check", checked)
    out = tmp_path / "out"
    assert gpu_parts.main(["--only", "bits,tests,versions", "--out", str(out)]) == 1
    assert seen == ["versions", "tests", "bits"]
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["ok"], last["failed"]) == (False, ["tests"])
    assert json.loads(out.read_text()) == last
    assert gpu_parts.main(["--only", "bits", "--minutes", "0.01"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == {
        "part": "bits",
        "ok": False,
        "failed": "no time left",
    }
    assert seen[3:] == []


def test_a_report_goes_to_a_file_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    Report(file)({"a": 1})
    assert file.getvalue() == capsys.readouterr().out == '{"a": 1}\n'

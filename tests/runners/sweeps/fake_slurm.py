"""As much of slurm as a sweep uses, on this machine: sbatch, srun, squeue, scancel and `scontrol requeue`.

The programs are links to this file, by these names. What is known of a job is in files of the folder FAKE_SLURM:
ID is there while the job is waiting or running, ID.pid has its process, ID.requeue asks for another start. No part of
this needs anything but Python: whether slurm's own programs do the same isn't seen here.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
POLL = 0.05


def install(folder: Path) -> dict[str, str]:
    """Make the programs; returns the variables with which they are found."""
    (folder / "bin").mkdir(parents=True)
    (folder / "state").mkdir()
    for name in PROGRAMS:
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        program.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "FAKE_SLURM": str(folder / "state")}


def sbatch(state: Path, file: str) -> None:
    text = Path(file).read_text()
    flags = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
    if flags.get("partition") == "none":
        sys.exit("sbatch: error: invalid partition specified: none")
    number = 100 + len([*state.glob("*.sh")])
    (state / f"{number}.sh").write_text(text)
    array = re.fullmatch(r"'?0-(\d+)%(\d+)'?", flags.get("array", ""))
    names = [f"{number}_{task}" for task in range(int(array[1]) + 1)] if array else [str(number)]
    for name in names:
        (state / name).touch()
    command = [sys.executable, __file__, "controller", str(number), array[2] if array else "1", *names]
    nothing = subprocess.DEVNULL
    subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
    print(f"Submitted batch job {number}")


def controller(state: Path, number: str, at_once: str, *names: str) -> None:
    """Runs the jobs of an array, `at_once` at a time."""
    waiting, running = [*names], dict[str, subprocess.Popen[bytes]]()
    while waiting or running:
        for name in [name for name in waiting if not (state / name).exists()]:
            waiting.remove(name)  # cancelled
        while waiting and len(running) < int(at_once):
            name = waiting.pop(0)
            script = state / f"{number}.sh"
            (error,) = re.findall(r"^#SBATCH --error=(.*)$", script.read_text(), re.MULTILINE)
            with Path(str(error).replace("%A_%a", name).replace("%j", name)).open("a") as stream:
                running[name] = subprocess.Popen(["bash", script], env=variables(number, name), stderr=stream)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            del running[name]
            if (state / f"{name}.requeue").exists():
                (state / f"{name}.requeue").unlink()
                waiting.append(name)
            else:
                (state / name).unlink(missing_ok=True)
        time.sleep(POLL)


def variables(number: str, name: str) -> dict[str, str]:
    found = {**os.environ, "SLURM_JOB_ID": number, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1"}
    found |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "here", "FAKE_NAME": name}
    return found | ({"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": name.split("_")[1]} if "_" in name else {})


def srun(state: Path, *arguments: str) -> None:
    name, rest = os.environ["FAKE_NAME"], [*arguments]
    while rest[0].startswith("-"):
        flag = rest.pop(0)
        if flag in ("--output", "--error"):
            path = rest.pop(0).replace("%A_%a", name).replace("%j", name).replace("%t", "0")
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1 if flag == "--output" else 2)
    (state / f"{name}.pid").write_text(str(os.getpid()))
    os.execvp(rest[0], rest)


def squeue(state: Path, *arguments: str) -> None:
    print("\n".join(path.name for path in state.iterdir() if not path.suffix))


def scancel(state: Path, *names: str) -> None:
    for name in names:
        if (state / f"{name}.pid").exists():
            with suppress(ProcessLookupError):
                os.kill(int((state / f"{name}.pid").read_text()), signal.SIGTERM)
        else:
            (state / name).unlink(missing_ok=True)


def scontrol(state: Path, action: str, name: str) -> None:
    assert action == "requeue"
    (state / f"{name}.requeue").touch()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(os.environ["FAKE_SLURM"]), *sys.argv[2:])

"""The launchers' settings: what is refused, before anything is started or left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from runners.sweeps import allotted, launchers, slurm
from tests.runners.conftest import Run, faults

SLURM, RAY = ["-m", "hydra/launcher=slurm"], ["-m", "hydra/launcher=ray"]
TIME = 'give minutes, 2 or more, or a text such as "2:00:00"'
MEMORY = "give gigabytes, or a text such as 8GB or 500MB"
REFUSED = {
    (*SLURM, "hydra.launcher.time=soon"): f"hydra.launcher.time: 'soon' is not allowed, {TIME}",
    (*SLURM, "hydra.launcher.time=0"): f"hydra.launcher.time: 0 is not allowed, {TIME}",
    (*SLURM, "hydra.launcher.memory=much"): f"hydra.launcher.memory: 'much' is not allowed, {MEMORY}",
    (*SLURM, "hydra.launcher.partion=gpu"): "hydra.launcher.partion: unknown, ",
    (*SLURM, "hydra.launcher.cpus=0"): "hydra.launcher.cpus: 0 is not allowed, give a whole number >= 1",
    (*SLURM, "hydra.launcher.cluster=here"): "hydra.launcher.cluster: 'here' is not allowed, give one of slurm, local",
    (*RAY, "hydra.launcher.gpus=-1"): "hydra.launcher.gpus: -1 is not allowed, give a whole number >= 0",
    (*RAY, "hydra.launcher.time=60"): "hydra.launcher.time: unknown, ",
    ("-m", "hydra/launcher=local", "hydra.launcher.jobs=2"): "hydra.launcher.jobs: unknown, ",
    ("-m", "hydra.launcher.time=60"): "hydra.launcher.time: unknown, ",
}


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("given", REFUSED, ids=" ".join)
def test_what_is_refused(given: tuple[str, ...], run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*given, "seed=1,2") == 2
    (fault,) = faults(capsys)
    assert fault.startswith(REFUSED[given])


@pytest.mark.usefixtures("closed")
def test_settings_in_a_file(
    run: Run, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path_factory.mktemp("own")
    (own / "experiment").mkdir()
    launcher = "defaults: [{override /hydra/launcher: slurm}]\nhydra: {launcher: {time: never, memory: 8GB}}"
    (own / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{launcher}\n")
    assert run("-m", "experiment=mine", "seed=1,2", "--config-dir", str(own)) == 2
    assert faults(capsys) == [f"hydra.launcher.time: 'never' is not allowed, {TIME}"]


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_package_that_is_not_installed(
    name: str, package: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert run("-m", f"hydra/launcher={name}", "seed=1,2", "sweep_dir=swept") == 2
    how = f'pip install -c constraints.txt -e ".[{name}]"'
    assert faults(capsys) == [f"hydra/launcher: {package} is not installed: {how}"]


def test_a_machine_without_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", sys)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Exception, match=r"hydra\.launcher\.cluster: there is no sbatch here"):
        slurm.settings({})
    assert slurm.settings({"cluster": "local"}).time == 60


def test_jobs_is_not_for_launchers_of_others(
    run: Run, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path_factory.mktemp("own")
    (own / "hydra" / "launcher").mkdir(parents=True)
    (own / "hydra" / "launcher" / "theirs.yaml").write_text("_target_: hydra_plugins.theirs.Launcher\n")
    assert run("-m", "hydra/launcher=theirs", "jobs=2", "seed=1,2", "--config-dir", str(own)) == 2
    problem = "is for local, slurm, ray, but theirs is chosen: see its own settings, hydra.launcher.KEY"
    assert faults(capsys) == [f"jobs: {problem}"]


@pytest.mark.parametrize(
    ("time", "minutes"), [(90, 90), ("2:00:00", 120), ("0:02:30", 3), ("1-12:00:00", 36 * 60), ("100:00:00", 6000)]
)
def test_times(time: int | str, minutes: int) -> None:
    assert allotted.minutes(time) == minutes


@pytest.mark.parametrize(
    ("memory", "megabytes"), [(8, 8192), (0.5, 512), ("8GB", 8192), ("500MB", 500), ("1.5 GiB", 1536), ("2T", 2**21)]
)
def test_memory(memory: float | str, megabytes: int) -> None:
    assert allotted.megabytes(memory) == megabytes


@pytest.mark.parametrize("text", ["", "GB", "8", "-1GB", "1e3GB", "0.1MB", "8 PB"])
def test_no_memory(text: str) -> None:
    with pytest.raises(ValueError, match=text or "^$"):
        allotted.megabytes(text)


def test_the_settings_in_hydra_are_those_that_are_checked() -> None:
    """Their names and their defaults."""
    from hydra_plugins.cnn_from_scratch import LAUNCHERS
    from runners.sweeps.ray import RaySettings
    from runners.sweeps.slurm import SlurmSettings

    models: dict[str, type[BaseModel]] = {"local": launchers.LocalSettings, "slurm": SlurmSettings, "ray": RaySettings}
    assert set(LAUNCHERS) == set(launchers.NAMES)
    for name, settings in LAUNCHERS.items():
        given = {key: value for key, value in settings.items() if key != "_target_"}
        assert models[name]().model_dump() == {**given, **({"setup": ()} if "setup" in given else {})}
        assert set(given) == set(models[name].model_fields)


def test_other_programs_that_use_hydra_import_nothing_of_this_project() -> None:
    import subprocess

    code = "import sys, hydra_plugins.cnn_from_scratch; print([n for n in sys.modules if n in ('runners', 'torch')])"
    found = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert found.stdout == "[]\n"

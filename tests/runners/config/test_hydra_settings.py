"""A `hydra:` section in a file of one's own: what isn't obeyed is refused, by name, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runners.conftest import Run, faults
from tests.runners.sweeps.statuses import statuses

IN_FILE = "only hydra.launcher and hydra.sweeper can be set in a file (FILE)"
NO_RUN_DIR = "run_dir: a sweep creates a directory for each job, give sweep_dir instead"

REFUSED = {
    "hydra: {run: {dir: deep/x}, job: {chdir: true}}": [
        f"hydra.run.dir: {IN_FILE}; give run_dir=DIRECTORY",
        f"hydra.job.chdir: {IN_FILE}; a run stays in the directory in which it was started",
    ],
    "hydra: {output_subdir: .hydra}": [f"hydra.output_subdir: {IN_FILE}"],
    "hydra: {mode: MULTIRUN}": [f"hydra.mode: {IN_FILE}; give -m on the command line"],
    "hydra: {sweep: {dir: x, subdir: y}}": [f"hydra.sweep: {IN_FILE}; give sweep_dir=DIRECTORY"],
    "hydra: {job_logging: {handlers: {f: {class: logging.FileHandler, filename: x.log}}}}": ["hydra.job_logging: "],
    "hydra: {callbacks: {x: {_target_: os.mkdir}}}": ["hydra.callbacks.x._target_: "],
    "hydra: {verbose: true}": [f"hydra.verbose: {IN_FILE}; remove it"],
    "sweep_dir: x": ["sweep_dir: has no effect in a file, give it on the command line: -m sweep_dir=DIRECTORY"],
}


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder of configs, in which experiments can be put."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "sound.yaml").write_text("# @package _global_\nepochs: 1\n")
    return folder


def experiment(own: Path, content: str, name: str = "mine") -> Path:
    file = own / "experiment" / f"{name}.yaml"
    file.write_text(f"# @package _global_\n{content}\n")
    return file


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("sweep", [[], ["-m"], ["-m", "sound"]], ids=["run", "sweep", "one of several"])
@pytest.mark.parametrize("content", REFUSED)
def test_a_file_that_sets_what_is_not_obeyed(
    content: str, sweep: list[str], run: Run, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = experiment(own, content)
    choice = ",".join([*sweep[1:], "mine"])
    assert run(*sweep[:1], f"experiment={choice}", "--config-dir", str(own)) == 2
    expected = [text.replace("FILE", str(file)) for text in REFUSED[content]]
    assert [fault[: len(text)] for fault, text in zip(faults(capsys), expected, strict=True)] == expected


@pytest.mark.usefixtures("closed")
def test_a_link_to_a_folder_of_files_is_looked_into(
    run: Run, own: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment(own, "hydra: {run: {dir: deep/x}, job: {chdir: true}}")
    linked = tmp_path_factory.mktemp("linked")
    (linked / "experiment").symlink_to(own / "experiment")
    assert run("experiment=mine", "--config-dir", str(linked)) == 2
    assert [fault.partition(":")[0] for fault in faults(capsys)] == ["hydra.run.dir", "hydra.job.chdir"]


@pytest.mark.usefixtures("closed")
def test_a_directory_for_one_run_in_a_sweep(run: Run, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment(own, "run_dir: x")
    assert run("-m", "experiment=sound,mine", "--config-dir", str(own)) == 2
    assert faults(capsys) == [NO_RUN_DIR]
    experiment(own, "hydra: {sweeper: {params: {run_dir: 'x,y'}}}")
    assert run("-m", "experiment=mine", "--config-dir", str(own), "debug=summary") == 2
    assert faults(capsys) == [NO_RUN_DIR]


REFUSED_BY_HYDRA = "refused by Hydra's sweeper or launcher: "
NO_PARAMS = "hydra.sweeper.params: can't be set for this sweeper, give the values as overrides, such as seed=1,2"
TYPED = {
    "hydra.sweeper.params={seed:[1,2]}": NO_PARAMS,
    "hydra.sweeper.params={seed:'1,2'}": NO_PARAMS,
    "hydra.sweeper.params.seed='1,2'": NO_PARAMS,
    "hydra.sweeper.params=seed": NO_PARAMS,
    "hydra.sweeper=basic": "hydra.sweeper: can't be set, choose one with hydra/sweeper=NAME",
    "hydra.launcher=null": "hydra.launcher: can't be set, choose one with hydra/launcher=NAME",
    "hydra.launcher._target_=os.system": "hydra.launcher._target_: can't be set, choose one with hydra/launcher=NAME",
    "hydra/launcher=null": f"hydra/launcher: {REFUSED_BY_HYDRA}",
    "hydra/sweeper=basic,basic": "hydra/sweeper: basic,basic is more than one value",
    "hydra.sweeper.max_batch_size=0": f"hydra.sweeper.max_batch_size: {REFUSED_BY_HYDRA}",
    "hydra.sweeper.max_batch_size=x": "hydra.sweeper.max_batch_size: can't be set: Value 'x'",
    "hydra.sweeper.max_batch_size=1,2": "hydra.sweeper.max_batch_size: 1,2 is more than one value",
    "hydra.launcher.foo=1": "hydra.launcher.foo: unknown, ",
}


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("typed", TYPED)
def test_a_setting_of_a_sweep_on_the_command_line(typed: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "epochs=1,2", typed) == 2
    (told,) = faults(capsys)
    assert told.startswith(TYPED[typed])


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(
    ("typed", "place"), [("optimizer=interval(0,1)", "optimizer"), ("seed=interval(0,1)", "hydra/sweeper")]
)
def test_an_interval_for_the_basic_sweeper(
    typed: str, place: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-m", "hydra/sweeper=basic", typed) == 2
    assert [fault.split(":")[0] for fault in faults(capsys)] == [place]


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("content", ["launcher: null", "sweeper: {params: [1]}", "sweeper: {params: {nokey: '1,2'}}"])
def test_a_setting_of_a_sweep_in_a_file(content: str, run: Run, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = experiment(own, f"hydra:\n  {content}")
    assert run("-m", "experiment=mine", "--config-dir", str(own)) == 2
    (told,) = faults(capsys)
    assert told.startswith(f"{file}: {REFUSED_BY_HYDRA}")


def test_what_is_obeyed(run: Run, own: Path) -> None:
    experiment(own, "run_dir: x\nhydra: {output_subdir: null}")
    assert run("experiment=mine", "--config-dir", str(own), "epochs=1") == 0
    assert [path.name for path in Path().iterdir()] == ["x"]
    experiment(own, "hydra: {sweeper: {params: {seed: '1,2'}}}")
    assert run("-m", "experiment=mine", "--config-dir", str(own), "epochs=1", "sweep_dir=swept") == 0
    assert sorted(statuses("swept")) == ["0", "1"]


@pytest.mark.usefixtures("closed")
def test_faults_on_the_command_line_are_reported_too(run: Run, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment(own, "hydra: {mode: MULTIRUN}")
    assert run("experiment=mine", "--config-dir", str(own), "seed=[1") == 2
    assert [fault.split(":")[0] for fault in faults(capsys)] == ["seed", "hydra.mode"]

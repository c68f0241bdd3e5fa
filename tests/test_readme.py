"""What the README and the guide show works as it is shown: commands, configs, messages, tables. Snippets: test_docs."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from cnn import build_model
from cnn.builder import known
from cnn.losses import LOSSES
from cnn.optimizers import OPTIMIZERS
from cnn.schedules import SCHEDULES
from runners.cli import train
from runners.config import extensions, folders, overrides, sweeping
from runners.config.overrides import Command
from runners.data.augmentation import Augmentation
from runners.data.sources import SOURCES
from runners.sweeps import space
from runners.tasks.registry import TASKS
from runners.tasks.task import Task
from tests.test_docs import registries_kept

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide"
PAGES = [ROOT / "README.md", *sorted(GUIDE.glob("*.md"))]
README, REFERENCE = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", GUIDE / "reference.md"))
EVERYTHING = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
KINDS: dict[str, Mapping[str, type]] = {
    "layer": known(),
    "optimizer": OPTIMIZERS,
    "loss": LOSSES,
    "schedule": SCHEDULES,
}
OWN = {"scale.py": "a-layer-of-your-own.md", "ink.py": "a-task-of-your-own.md", "lines.py": "trackers.md"}
"""Files that a reader saves from the guide, and the pages whose first block of Python they are."""


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_two_commands_are_single_lines() -> None:
    lines = [block.strip() for block in blocks("sh") if block.startswith("python3 -m venv")]
    assert len(lines) == 2
    assert all(line.startswith("python3 -m venv .venv && ") and "\n" not in line for line in lines)
    assert all("-c constraints.txt" in line for line in lines)
    assert lines[0].endswith("run.py")
    assert lines[1].endswith("-m pytest")


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 152


@pytest.mark.parametrize(
    "text", [block for block in blocks("yaml", EVERYTHING) if "layers:" in block], ids=lambda text: text[:10]
)
def test_a_model_of_ones_own(text: str) -> None:
    composed = OmegaConf.create({"model": yaml.safe_load(text)})
    model = OmegaConf.to_container(composed, resolve=True)["model"]  # type: ignore[call-overload, index]
    assert build_model(model, (1, 28, 28)).output_shape((1, 28, 28)) == (10,)  # type: ignore[arg-type]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.parametrize(
    ("group", "kind"), [(group, kind) for group, registry in KINDS.items() for kind in registry], ids=str
)
def test_the_reference_lists_every_argument_with_its_default(group: str, kind: str) -> None:
    found = [" ".join(cells[1:]) for cells in rows(REFERENCE) if f"`{kind}`" in cells[0]]
    assert len(found) == 1, f"{kind} is in {len(found)} rows"
    parameters = inspect.signature(KINDS[group][kind]).parameters.values()
    for parameter in parameters:
        shown = re.search(rf"`{parameter.name}`(?:\\\*)?(?: \(([^)]*)\))?", found[0])
        assert shown, f"{parameter.name} is missing"
        if parameter.default is not parameter.empty:
            default = yaml.safe_load(f"[{(shown[1] or '').partition(';')[0].partition(':')[0]}]")
            expected = [*parameter.default] if isinstance(parameter.default, tuple) else [parameter.default]
            assert [number(value) for value in default] == expected
    listed = set(re.findall(r"`(\w+)`(?:\\\*)? \(", found[0]))
    assert listed <= {parameter.name for parameter in parameters}


def number(value: Any) -> Any:
    """YAML takes 1e-05 for text."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"[\d.]+e[-+]\d+", value) else value


def test_every_amount_of_augmentation_and_every_dataset_is_listed() -> None:
    text = (GUIDE / "augmentation.md").read_text(encoding="utf-8") + (GUIDE / "data.md").read_text(encoding="utf-8")
    cells = " ".join(row[0] for row in rows(text))
    missing = [
        name
        for name in (*inspect.signature(Augmentation).parameters, *folders.choices("augment"), *SOURCES)
        if f"`{name}`" not in cells
    ]
    assert missing == []


def test_every_member_of_the_contract_of_a_task_is_listed() -> None:
    """But for the ones that the base class has for its callers."""
    internal = {"train_with", "metric", "columns", "monitored_first", "rate_columns", "learning_rates", "watched"}
    text = (GUIDE / "a-task-of-your-own.md").read_text(encoding="utf-8")
    members = [name for name in vars(Task) if not name.startswith("_") and name not in internal]
    assert [name for name in members if not re.search(rf"`{name}[`(]", text)] == []


def test_the_message_is_the_one_that_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shown,) = re.findall(r"```\n(error: .*?)\n```", README)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])
    assert train.main(["model.layers=[{conv2d:{out_channels:4,kernel_size:0}}]"]) == 2
    assert shown in capsys.readouterr().err


def commands() -> list[str]:
    """Every `python run.py ...` that is shown and names no placeholder, whether in a block or in a line of text."""
    code = [line.partition(" #")[0].strip() for block in blocks("sh", EVERYTHING) for line in block.splitlines()]
    code += re.findall(r"`([^`\n]+)`", EVERYTHING)
    shown = {line.removeprefix("python run.py").strip() for line in code if line.startswith("python run.py ")}
    placeholder = re.compile(r"=(?:RUN|SWEEP|DIR|K|N|NAME|FOLDER)\b|FOLDER|FILE\.py|=mine|\.\.\.|\[key")
    return sorted(line for line in shown if not placeholder.search(line))


def test_there_are_commands() -> None:
    assert len(commands()) > 25


@pytest.mark.parametrize("typed", commands())
def test_commands_are_ones_that_run(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Composed and checked as they are typed, files from the guide included; none of them trains here."""
    monkeypatch.chdir(tmp_path)
    save_own(tmp_path)
    arguments = shlex.split(typed)
    with registries_kept():
        if any(argument.startswith("resume=") for argument in arguments):
            rest = [given for given in arguments if not given.startswith(("resume", "extensions="))]
            extensions.load_from_arguments(arguments)
            assert all(re.fullmatch(r"epochs=\d+|auto", given) for given in rest)
            return
        command: Command = overrides.prepare(arguments)
        assert command.faults == []
        if command.showing:
            return
        if "hydra/sweeper=optuna" in arguments:
            assert space.parse(
                [given for given in command.overrides if not given.lstrip("+").startswith("hydra")]
            ).searched
            return
        swept = [given.partition("=")[2] for given in arguments if "," in given and "[" not in given]
        assert not swept or command.sweeping
        first = [given if "[" in given else first_value(given) for given in arguments if given != "-m"]
        others = (
            "run_dir=",
            "init_from=",
            "debug=",
            "hydra/launcher",
            "hydra.launcher.",
            *(f"{key}=" for key in sweeping.KEYS),
        )
        rest = [given for given in first if not given.startswith(others) and not is_without_library(given)]
        monkeypatch.setattr("sys.argv", ["run.py"])
        code = train.main([*rest, "debug=summary"])
        assert (code, capsys.readouterr().err) == (0, "")


def is_without_library(given: str) -> bool:
    """Whether an argument chooses a tracker whose library isn't there, which is one line and tested elsewhere."""
    libraries = re.findall("tensorboard|mlflow|wandb", given) if given.startswith("tracker=") else []
    return any(importlib.util.find_spec(library) is None for library in libraries)


def first_value(given: str) -> str:
    """The first of the values that a sweep has: of `seed=range(3,9)`, `seed=3`."""
    return re.sub(r"range\((\d+),.*\)", r"\1", given).partition(",")[0]


def save_own(folder: Path) -> None:
    """The files that a reader saves from the guide."""
    for name, page in OWN.items():
        first = blocks("python", (GUIDE / page).read_text(encoding="utf-8"))[0]
        (folder / name).write_text(first, encoding="utf-8")
    (folder / "examples").symlink_to(ROOT / "examples")


SMALL = ["data.num_examples=64", "data.val_examples=32", "epochs=1"]


@pytest.mark.parametrize(
    "own",
    [
        ["extensions=[scale.py]", "model.layers=[{scale:{power:2}},flatten,{linear:{out_features:10}}]"],
        ["extensions=[ink.py]", "task.name=ink", "loss=l2", "model.layers=[flatten,{linear:{out_features:1}}]"],
        ["extensions=[lines.py]", "tracker={lines:{file:x.jsonl}}"],
    ],
    ids=OWN,
)
def test_files_of_ones_own_train_and_resume(own: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])
    save_own(tmp_path)
    with registries_kept():
        assert train.main([*own, *SMALL, "run_dir=a"]) == 0
        assert train.main(["resume=a", own[0], "epochs=2"]) == 0
    assert "ink" not in TASKS


def test_an_experiment_of_ones_own_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, sweep = blocks("yaml", (GUIDE / "experiments-of-your-own.md").read_text(encoding="utf-8"))
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(experiment + sweep, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["run.py"])
    given = ["--config-dir", str(tmp_path), "experiment=mine", "debug=summary"]
    assert train.main(given) == 0
    assert train.main(["-m", *given]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == ["3", "seed=1", "optimizer.lr=0.002"]


def test_choices_exist() -> None:
    for group, names in re.findall(r"\b(model|optimizer|data|loss|schedule|augment|experiment)=(\w+)", EVERYTHING):
        assert names in ("mine", "NAME") or names in folders.choices(group), f"{group}={names}"

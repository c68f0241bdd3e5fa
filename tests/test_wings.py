"""The house keeps its order: who imports whom, how long files are, and how much a function wants to be given."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNNERS = sorted((ROOT / "runners").rglob("*.py"))
GROUND = ("errors", "exit_codes", "signals")
LEVELS: list[tuple[str, ...]] = [
    GROUND,
    ("files", "pictures"),
    ("data",),
    ("tasks",),
    ("trackers",),
    ("config",),
    ("training",),
    ("prediction",),
    ("drawing",),
    ("sweeps",),
    ("reports",),
    ("cli",),
    ("train", "evaluate", "report", "export"),  # entries of three lines
]
"""Each imports what is above it in this list, and its own."""

LONG_FILES: dict[str, str] = {
    "tools/faults/pickles.py": "every kind of malicious pickle, by hand",
    "tools/photos.py": "27 kinds of photos, each a few lines of drawing",
    "tests/runners/data/test_augmentation.py": "each amount against its own formula",
    "tests/runners/pictures/test_pictures.py": "what is read and what is refused, with their messages",
    "tests/runners/files/test_checkpoint.py": "one table of what is refused, which every test reads",
    "tests/runners/data/test_download.py": "one server that fails in every way",
    "tests/runners/cli/test_processes.py": "real processes and signals, which share their helpers",
    "tests/runners/training/test_resume_requests.py": "what a resume may change, in one table",
    "tests/test_from_scratch.py": "the allow-list of torch names is long",
}
"""Files of more than 300 lines, and why."""

MANY_PARAMETERS: dict[str, str] = {
    "runners/data/augmentation.py:__init__": "the amounts that a config may give",
    "runners/data/batches.py:__init__": "examples and how they are scaled: keywords but for two",
    "runners/data/sources/folder.py:__init__": "the arguments that a config may give",
    "runners/data/sources/idx.py:__init__": "the arguments that a config may give",
    "runners/data/sources/moving_mnist.py:__init__": "the arguments that a config may give",
}
"""Functions of runners/ with more than six parameters, and why."""


def level(module: str) -> int:
    """How high in the house a module of runners/ is."""
    wing = module.split(".")[1]
    return next(number for number, wings in enumerate(LEVELS) if wing in wings)


def imported(file: Path, package: str) -> Iterator[str]:
    """The modules of a package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute here"
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [part if is_module(part) else str(node.module) for part in parts]
        yield from (name for name in names if name == package or name.startswith(f"{package}."))


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("file", RUNNERS, ids=module_of)
def test_imports_go_down(file: Path) -> None:
    own = module_of(file).removesuffix(".__init__")
    for module in imported(file, "runners"):
        assert module != "runners", f"{own}: import from a wing"
        same = module.split(".")[1] == own.split(".")[1]
        assert same or level(module) < level(own) or {module.split(".")[1], own.split(".")[1]} <= set(GROUND), (
            f"{own} imports {module}, which is not below it"
        )


@pytest.mark.parametrize("package", ["cnn", "runners"])
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    """Also not for types alone. A package's own module counts as the names that are taken from it."""
    files = {module_of(file).removesuffix(".__init__"): file for file in (ROOT / package).rglob("*.py")}
    needs = {module: {name for name in imported(file, package) if name in files} for module, file in files.items()}
    waiting = dict(needs)
    while ready := [module for module, wanted in waiting.items() if not (wanted - {module}) & waiting.keys()]:
        for module in ready:
            del waiting[module]
    assert not waiting


def test_tasks_take_values_and_never_a_config() -> None:
    for file in (ROOT / "runners" / "tasks").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "omegaconf" not in text
        assert "hydra" not in text.lower()
        assert "runners.config" not in text


def test_every_wing_says_what_it_is_and_what_it_imports() -> None:
    wings = [folder for folder in sorted((ROOT / "runners").iterdir()) if (folder / "__init__.py").is_file()]
    assert {wing.name for wing in wings} <= {name for names in LEVELS for name in names}
    for wing in wings:
        text = ast.get_docstring(ast.parse((wing / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert "Imports " in text, wing


def test_the_network_imports_nothing_of_the_experiments() -> None:
    for file in (ROOT / "cnn").rglob("*.py"):
        assert not list(imported(file, "runners")), file


def test_the_check_sees_an_import_that_goes_up(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from runners.training import loop\n    from runners import cli\n")
    assert list(imported(file, "runners")) == ["runners.training.loop", "runners.cli"]
    assert level("runners.training") > level("runners.tasks.task")


def test_entries_are_three_lines() -> None:
    for name in LEVELS[-1]:
        file = ROOT / "runners" / f"{name}.py"
        if file.is_file():
            body = ast.parse(file.read_text(encoding="utf-8")).body
            assert not [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)], file


def test_long_files_are_listed() -> None:
    """A file that outgrows 300 lines says something; which ones did, and why, is one list."""
    folders = [ROOT / name for name in ("cnn", "runners", "tests", "tools", "benchmarks", "examples")]
    files = [file for folder in folders if folder.is_dir() for file in folder.rglob("*.py")]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {name for name, length in lengths.items() if length > 300} == set(LONG_FILES)


def test_functions_that_want_much_are_listed() -> None:
    found = set()
    for file in RUNNERS:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if len([argument for argument in arguments if argument.arg not in ("self", "cls")]) > 6:
                    found.add(f"{file.relative_to(ROOT)}:{node.name}")
    assert found == set(MANY_PARAMETERS)

"""The pages in docs/ hold together: links lead somewhere, code and pages agree, snippets print what is shown."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = sorted(page for page in DOCS.glob("*.md") if page != INDEX)
MODULES = sorted((ROOT / "cnn").rglob("*.py"))

PRINTING = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
"""A block of Python, and the block of text after it, which is then what it prints."""


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def prose(file: Path) -> str:
    """A page without code and formulas, whose brackets would look like links."""
    text = re.sub(r"^```.*?^```$", "", read(file), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`|\$[^$]*\$", "", text.replace("$$", "$"))


def linked(page: Path) -> set[Path]:
    """The files that a page links to."""
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))}
    return {(page.parent / target).resolve() for target in targets if target and "://" not in target}


def named(module: Path) -> set[Path]:
    """The pages that a module's docstring names."""
    docstring = ast.get_docstring(ast.parse(read(module))) or ""
    return {ROOT / page for page in re.findall(r"docs/[\w-]+\.md", docstring)}


def snippets() -> list[object]:
    """Page, code, and what it prints, or None where that isn't shown."""
    return [
        pytest.param(page, match[1], match[2], id=f"{page.stem}-{number}")
        for page in [INDEX, *PAGES]
        for number, match in enumerate(PRINTING.finditer(read(page)), start=1)
    ]


@pytest.mark.parametrize("page", [ROOT / "README.md", INDEX, *PAGES], ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    assert [str(target) for target in linked(page) if not target.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_is_found_from_the_index_and_from_the_code(page: Path) -> None:
    assert page in linked(INDEX)
    assert any(page in named(module) for module in MODULES)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_modules_and_pages_name_each_other(module: Path) -> None:
    if re.search(r"^ +Backward: ", read(module), re.MULTILINE):
        assert named(module), "has formulas, and its docstring names no page that derives them"
    for page in named(module):
        assert page.exists()
        assert module in linked(page), f"{page.name} doesn't link back"


@pytest.mark.parametrize(("page", "code", "shown"), snippets())
def test_snippets_run_and_print_what_is_shown(
    page: Path, code: str, shown: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert shown is None or printed == shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_formulas_are_such_as_github_renders(page: Path) -> None:
    """Displayed formulas stand between lines of $$, and Markdown has no reason to eat a backslash."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", read(page), flags=re.DOTALL | re.MULTILINE)
    assert all(line.strip() == "$$" for line in text.splitlines() if "$$" in line)
    formulas = re.findall(r"^\s*\$\$\n(.*?)^\s*\$\$$|\$([^$]+)\$", text, re.DOTALL | re.MULTILINE)
    eaten = [formula for pair in formulas for formula in pair if re.search(r"\\[^A-Za-z\s]", formula)]
    assert eaten == []

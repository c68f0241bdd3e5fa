"""The README and the pages in docs/ hold together: links and anchors exist, code and pages agree, snippets run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runners.config import extensions

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = sorted(page for page in DOCS.glob("*.md") if page != INDEX)
GUIDE = DOCS / "guide"
GUIDE_PAGES = sorted(GUIDE.glob("*.md"))
README = ROOT / "README.md"
ALL = [README, INDEX, *PAGES, *GUIDE_PAGES]
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


def name(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    assert [str(target) for target in linked(page) if not target.exists()] == []


@pytest.mark.parametrize("page", ALL, ids=name)
def test_anchors_are_headings(page: Path) -> None:
    missing = []
    for target in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", prose(page)):
        file, _, anchor = target.partition("#")
        if "://" not in file and anchor not in anchors((page.parent / file).resolve() if file else page):
            missing.append(target)
    assert missing == []


def test_the_guide_is_found_from_the_readme_and_the_index() -> None:
    guide = GUIDE / "README.md"
    assert guide in linked(README)
    assert guide in linked(INDEX)
    assert [page.name for page in GUIDE_PAGES if page != guide and page not in linked(guide)] == []


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


@contextmanager
def registries_kept() -> Iterator[None]:
    """What is registered inside is gone afterwards."""
    before = [dict(registry) for _, registry in extensions.REGISTRIES]
    try:
        yield
    finally:
        extensions._loaded.clear()
        for (_, registry), entries in zip(extensions.REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(entries)


@pytest.mark.parametrize("page", [page for page in [README, *GUIDE_PAGES] if PRINTING.search(read(page))], ids=name)
def test_the_snippets_of_a_guide_page_run_one_after_the_other(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one namespace: a later one may use what an earlier one defines."""
    monkeypatch.chdir(ROOT)
    namespace: dict[str, object] = {"__name__": "__main__"}
    with registries_kept():
        for match in PRINTING.finditer(read(page)):
            exec(compile(match[1], str(page), "exec"), namespace)
            printed = capsys.readouterr().out
            assert match[2] is None or printed == match[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_formulas_are_such_as_github_renders(page: Path) -> None:
    """Displayed formulas stand between lines of $$, and Markdown has no reason to eat a backslash."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", read(page), flags=re.DOTALL | re.MULTILINE)
    assert all(line.strip() == "$$" for line in text.splitlines() if "$$" in line)
    formulas = re.findall(r"^\s*\$\$\n(.*?)^\s*\$\$$|\$([^$]+)\$", text, re.DOTALL | re.MULTILINE)
    eaten = [formula for pair in formulas for formula in pair if re.search(r"\\[^A-Za-z\s]", formula)]
    assert eaten == []

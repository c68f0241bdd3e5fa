"""The command behind `python -m runners.report PATH...`: compare runs and sweeps, or say where one run comes from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runners.errors import InputError, OptionError, program, short
from runners.exit_codes import DONE, report_error
from runners.files import atomic
from runners.files.paths import user_path
from runners.reports import page, spreadsheet, terminal
from runners.reports.cells import counted
from runners.reports.collecting import Collection, collect
from runners.reports.grouping import Table, tables


def main(arguments: Sequence[str]) -> int:
    """Print a report, or write it as a page, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog=program("report"),
        description="Compare all runs and sweeps below folders, or say where one run comes from.",
    )
    parser.add_argument("path", nargs="+", metavar="PATH", help="a folder with runs or sweeps, or a run directory")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--csv", action="store_true", help="print CSV with all digits")
    shape.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--html", metavar="FILE", help="write one page that needs no other file")
    parser.add_argument(
        "--figures",
        choices=page.FIGURES,
        default="fit",
        help="which figures the page includes as thumbnails: those that fit in 1 MB (default), or others",
    )
    options = parser.parse_args(arguments)
    try:
        file = _page_file(options.html)
        collection = collect(options.path)
        found, others = tables(collection.runs)
        if options.csv:
            print(spreadsheet.as_csv(found, others), end="")
        elif options.markdown:
            print(spreadsheet.as_markdown(collection, found))
        elif file is None:
            print(_text(collection, found))
        if file is not None:
            content = page.page(collection, found, file, options.figures)
            _write(file, content)
            where = sys.stderr if options.csv or options.markdown else sys.stdout
            print(
                f"wrote {short(file)}: {counted(len(collection.runs), 'run')}, {len(content) / 1e6:.2f} MB", file=where
            )
    except InputError as error:
        return report_error(error)
    return DONE


def _text(collection: Collection, found: Sequence[Table]) -> str:
    """Of one run, which a path names, where it comes from; else the tables."""
    (path, *more), (run, *others) = collection.paths, collection.runs
    alone = not more and not others and path.resolve() == run.path.resolve()
    return terminal.one_run(run) if alone else terminal.report(collection, found)


def _page_file(text: str | None) -> Path | None:
    """Where the page goes. Raises OptionError if it can't be written there."""
    if text is None:
        return None
    file = user_path(text)
    if file.is_dir():
        raise OptionError(f"--html {short(file)}: it is a folder, give a file")
    if file.exists() and not file.is_file():
        raise OptionError(f"--html {short(file)}: it isn't a file, give the name of one")
    if not file.absolute().parent.is_dir():
        raise OptionError(f"--html {short(file)}: there is no folder {short(file.parent)}")
    return file


def _write(file: Path, content: bytes) -> None:
    try:
        atomic.write(file.resolve(), content)  # what a link leads to, not the link
    except OSError as error:
        raise OptionError(f"--html {short(file)}: it can't be written: {error.strerror}") from None

"""Text that people read: on one line, cut where it is long, and with the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

LONGEST_LINE = 400
"""Characters that are shown of what may be any text."""

LONGEST_NAME = 60
"""Longer names aren't compared with those that are known."""


def printable(text: object) -> str:
    """On one line, and in characters that a terminal shows: names that aren't ours may hold any others too."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def short(text: object) -> str:
    """Printable, and cut in the middle where it is long."""
    line = printable(text)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]}...{line[-LONGEST_LINE // 2 :]}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is probably meant, if one is similar."""
    if len(str(name)) > LONGEST_NAME:
        return None
    lower = {candidate.lower(): candidate for candidate in sorted(known)}
    close = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
    return lower[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the one that is probably meant, and all that are known."""
    known = sorted(known)
    likely = closest(name, known)
    if likely:
        return f"did you mean {likely}? (known: {', '.join(known)})"
    return f"known: {', '.join(known)}" if known else "nothing is known here"


def show(value: object) -> str:
    """A value as one would write it in YAML, cut where it is long."""
    names = {True: "true", False: "false", None: "null"}
    text = names[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def columns(rows: Sequence[Sequence[str]], align: str = "<") -> list[str]:
    """Rows of cells as lines with their columns aligned, two spaces apart.

    `align` has `<` (left) or `>` (right) for each column; its last letter is for all columns that follow.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    signs = align.ljust(len(widths), align[-1])
    forms = [f"{sign}{width}" for sign, width in zip(signs, widths, strict=False)]
    return ["  ".join(format(cell, form) for cell, form in zip(row, forms, strict=True)).rstrip() for row in rows]

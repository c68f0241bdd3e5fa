"""Text for people: on one line, shortened, aligned, as YAML, with the name that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

MAX_LINE = 400
"""Characters shown of a text that may be arbitrarily long."""

MAX_NAME = 60
"""Longer names aren't compared with the known ones."""


def printable(text: object) -> str:
    """The text on one line, with unprintable characters escaped: other people's names may contain anything."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def short(text: object) -> str:
    """`printable`, with the middle cut out of a long text."""
    line = printable(text)
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]}...{line[-MAX_LINE // 2 :]}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, if one is similar."""
    if len(str(name)) > MAX_NAME:
        return None
    lower = {candidate.lower(): candidate for candidate in sorted(known)}
    close = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
    return lower[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the one that was probably meant, and all known ones."""
    known = sorted(known)
    likely = closest(name, known)
    if likely:
        return f"did you mean {likely}? (known: {', '.join(known)})"
    return f"known: {', '.join(known)}" if known else "nothing can be given here"


def show(value: object) -> str:
    """A value as one would write it in YAML, shortened."""
    names = {True: "true", False: "false", None: "null"}
    text = names[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def first_of(texts: Sequence[str]) -> str:
    """The first three texts, and how many more there are."""
    more = f", and {len(texts) - 3} more" if len(texts) > 3 else ""
    return "; ".join(texts[:3]) + more


def columns(rows: Sequence[Sequence[str]], align: str = "<") -> list[str]:
    """Rows of cells as lines with their columns aligned, two spaces apart.

    `align` has `<` (left) or `>` (right) for each column; the last sign also serves all columns after it.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    signs = align.ljust(len(widths), align[-1])
    forms = [f"{sign}{width}" for sign, width in zip(signs, widths, strict=False)]
    return ["  ".join(format(cell, form) for cell, form in zip(row, forms, strict=True)).rstrip() for row in rows]


RESERVED = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}
"""Words that YAML would not read as strings."""


def yaml(value: object) -> str:
    """Mappings, lists, strings and numbers as YAML, without a final newline."""
    return "\n".join(_block(value))


def _block(value: object) -> list[str]:
    """The lines of a block: one per key or item, more for nested mappings."""
    if isinstance(value, Mapping) and value:
        return [line for key, item in value.items() for line in _pair(key, item)]
    if isinstance(value, list | tuple) and not _is_flat(value):
        return [mark + line for item in value for mark, line in zip(_marks(), _block(item), strict=False)]
    return [_flow(value)]


def _pair(key: object, item: object) -> list[str]:
    return [f"{key}: {_flow(item)}"] if _is_flat(item) else [f"{key}:", *("  " + line for line in _block(item))]


def _marks() -> Iterator[str]:
    """The prefixes of an item's lines."""
    yield "- "
    while True:
        yield "  "


def _is_flat(value: object) -> bool:
    """Whether this fits on one line: nothing in it contains a mapping."""
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return not any(isinstance(item, Mapping) or not _is_flat(item) for item in items)


def _flow(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    text = str(value)
    if isinstance(value, float):  # YAML needs a point, as in 1.0e-05 and -.inf
        return re.sub(r"^(-?)(inf|nan)$", r"\1.\2", re.sub(r"^(-?\d+)e", r"\1.0e", text))
    plain = isinstance(value, int) or (re.fullmatch(r"[A-Za-z_]\w*", text) and text.lower() not in RESERVED)
    return text if plain else "'" + text.replace("'", "''") + "'"

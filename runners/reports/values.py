"""Values of settings: found by dotted keys, compared, and shown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from cnn.text import printable, yaml

ABSENT = object()
"""The value of a setting that a config doesn't have."""

MAX_SETTING = 48
"""Characters of a setting in a table."""

NOTHING = "-"


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, which may lead into a list: model.layers.0.conv2d.kernel_size."""
    place = key
    while place not in config:
        place = place.rpartition(".")[0]
        if not place:
            return ABSENT
    return config[key] if place == key else leaves(config[place], place).get(key, ABSENT)


def leaves(value: Any, place: str) -> dict[str, Any]:
    """What is in nested lists and mappings, by dotted keys."""
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    found = {key: leaf for name, item in inner for key, leaf in leaves(item, f"{place}.{name}").items()}
    return found or {place: value}


def setting(value: Any) -> str:
    """A value as one types it, a list of layers by their names."""
    if value is ABSENT:
        return NOTHING
    text = yaml([_named(item) for item in value] if isinstance(value, list) else value)
    text = printable(text.replace("'", "") if isinstance(value, list) else value if isinstance(value, str) else text)
    if len(text) <= MAX_SETTING:
        return text
    more = f"... ({len(value)})" if isinstance(value, list) else "..."
    return f"{text[: MAX_SETTING - len(more)]}{more}"


def names(values: Iterable[Any]) -> dict[str, str]:
    """A short text for each value, by its `text_of`: with a number where the texts of different values are the same."""
    alike: dict[str, set[str]] = {}
    for value in values:
        alike.setdefault(setting(value), set()).add(text_of(value))
    return {
        text: name if number == 1 else f"{name} #{number}"
        for name, texts in alike.items()
        for number, text in enumerate(sorted(texts), start=1)
    }


def _named(item: Any) -> Any:
    """A layer, which is a name or a name with arguments, by its name."""
    return str(next(iter(item))) if isinstance(item, Mapping) and len(item) == 1 else item


def canonical(value: Any) -> str:
    """A text that is equal for equal values; 1.0 is 1."""
    return json.dumps(plain(value), sort_keys=True)


def text_of(value: Any) -> str:
    """`canonical`, for an absent value too."""
    return "" if value is ABSENT else canonical(value)


def plain(value: Any) -> Any:
    """What JSON has: an infinite number and everything else that it lacks become text, and 1.0 becomes 1."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return str(value) if not math.isfinite(value) else int(value) if value.is_integer() else value
    return value if value is None or isinstance(value, str | int) else str(value)

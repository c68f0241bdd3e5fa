"""Files of runs that may be broken: half-written, foreign, or not text at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from runners.files import metrics_csv
from runners.files.metrics_csv import Row

MAX_BYTES = 16 << 20
MAX_NODES = 100_000
MAX_DEPTH = 60
MAX_BITS = 64
"""What a config may contain: an alias in YAML repeats what it names, so a small file could fill the memory."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is there: ten times as fast."""


class Unreadable(Exception):
    """A file of a run can't be read; the message names it and says why."""


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object."""
    return _mapping(file, json.loads)


def read_yaml(file: Path) -> dict[str, Any]:
    """A mapping from YAML, read as data."""
    return _mapping(file, _yaml)


def read_list(file: Path) -> list[str]:
    """A list of strings from YAML."""
    content = _parsed(file, _yaml)
    if not isinstance(content, list):
        raise Unreadable(f"{file.name}: must be a list")
    return [str(item) for item in content]


def read_rows(file: Path) -> list[Row]:
    """The rows of a metrics.csv; none if it is missing or empty."""
    try:
        return metrics_csv.read(file) if file.is_file() else []
    except (ValueError, TypeError, csv.Error) as error:
        raise Unreadable(f"{file.name}: {_line(error)}") from None
    except OSError as error:
        raise Unreadable(f"{file.name}: {error.strerror}") from None


def _mapping(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    content = _parsed(file, parse)
    if not isinstance(content, Mapping):
        raise Unreadable(f"{file.name}: must be a mapping")
    return {str(key): value for key, value in content.items()}


def _parsed(file: Path, parse: Callable[[str], Any]) -> Any:
    try:
        if file.exists() and not file.is_file():
            raise Unreadable(f"{file.name}: not a file")
        if file.stat().st_size > MAX_BYTES:
            raise Unreadable(f"{file.name}: larger than {MAX_BYTES >> 20} MiB")
        content = parse(file.read_text(encoding="utf-8"))
        _check_size(content)
    except FileNotFoundError:
        raise Unreadable(f"{file.name}: missing") from None
    except OSError as error:
        raise Unreadable(f"{file.name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unreadable(f"{file.name}: not UTF-8 text") from None
    except RecursionError:
        raise Unreadable(f"{file.name}: nested too deeply") from None
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise Unreadable(f"{file.name}: {_line(error)}") from None
    return content


def _yaml(text: str) -> Any:
    if max(map(text.count, "[{")) > MAX_NODES:  # libyaml would recurse
        raise ValueError(f"more than {MAX_NODES:,} lists or mappings")
    return yaml.load(text, LOADER)


def _check_size(content: Any) -> None:
    """Raise ValueError for content with an enormous number, too deep or, with its aliases written out, too large."""
    nodes, level = 0, [content]
    for _ in range(MAX_DEPTH):
        nodes += len(level)
        if any(isinstance(item, int) and item.bit_length() > MAX_BITS for item in level):
            raise ValueError(f"a whole number of more than {MAX_BITS} bits")
        if nodes > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES:,} values")
        items = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [inner for item in items for inner in item]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} levels deep")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

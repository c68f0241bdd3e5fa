"""Nested mappings as people type them: by dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(config: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Values by dotted key. Lists aren't flattened."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{place}{key}.")
        else:
            found[f"{place}{key}"] = value
    return found

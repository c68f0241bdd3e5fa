"""What the tests of gradients found: how much each family was tried on, and its worst errors. Printed at the end."""

from __future__ import annotations

from collections import Counter, defaultdict

import torch

TOLERANCES = {"float64 vs torch": 1e-9, "float32 vs torch": 1e-4, "finite differences": 1e-6}

drawn: Counter[str] = Counter()
worst: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))


def check(family: str, comparison: str, errors: dict[str, float]) -> None:
    """Note the worst of these errors, and fail where it is above the comparison's tolerance."""
    largest = max(errors.values(), default=0.0)
    worst[family][comparison] = max(worst[family][comparison], largest)
    assert largest <= TOLERANCES[comparison], f"{comparison}: {errors}"


def pages() -> tuple[dict[str, int], dict[str, dict[str, float]]]:
    """Everything in plain dicts, as it travels between processes."""
    return dict(drawn), {family: dict(errors) for family, errors in worst.items()}


def add(other_drawn: dict[str, int], other_worst: dict[str, dict[str, float]]) -> None:
    """Take over what another process found."""
    drawn.update(other_drawn)
    for family, errors in other_worst.items():
        for comparison, error in errors.items():
            worst[family][comparison] = max(worst[family][comparison], error)


def against_torch(dtype: torch.dtype) -> str:
    """The name of a comparison with torch in this precision."""
    return f"{str(dtype).removeprefix('torch.')} vs torch"


def table() -> list[str]:
    """A line for each family, in Markdown."""
    lines = [f"| family | drawn | {' | '.join(TOLERANCES)} |", "| --- | ---: |" + " ---: |" * len(TOLERANCES)]
    for family in sorted(drawn):
        cells = [f"{worst[family][name]:.1e}" if name in worst[family] else "" for name in TOLERANCES]
        lines.append(f"| {family} | {drawn[family]} | {' | '.join(cells)} |")
    return lines

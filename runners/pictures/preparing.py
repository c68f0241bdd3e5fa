"""How pictures become a network's input: by the name that a dataset and its checkpoints give it."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from runners.pictures.reading import Prepared, prepare_plain

Prepare = Callable[[Image.Image, tuple[int, ...]], Prepared]


def preparer(preparation: str) -> Prepare:
    """`digit` or `plain`. SciPy, which takes a third of a second, is imported only for digits."""
    if preparation == "digit":
        from runners.pictures.digits import prepare_digit

        return prepare_digit
    return prepare_plain

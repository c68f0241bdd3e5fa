"""How exactly a GPU multiplies matrices of float32 values. The CPU always does so in float32."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "tf32", "bf16"]

_chosen: Precision = "float32"


def set_precision(name: Precision) -> None:
    """Choose the precision of products of float32 values in this process.

    `float32`: three products of parts with 11 bits each (tf32x3), about as exact as float32 itself. `tf32`: factors are
    rounded to 11 bits. `bf16`: to 8 bits. Values are stored, and products added up, in float32 in any case.
    """
    global _chosen
    _chosen = name


def chosen() -> Precision:
    """The precision of this process."""
    return _chosen

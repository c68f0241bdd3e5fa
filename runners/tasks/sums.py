"""Weighted sums by name; their means don't depend on how examples are batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Number = Tensor | float
"""A number, or a tensor with one value and no axes."""


class Sums:
    """A sum and a weight for each name. They stay on the device until a mean is requested."""

    def __init__(self, sums: Mapping[str, tuple[Number, Number]] | None = None) -> None:
        self._sums = dict(sums or {})

    def add(self, name: str, value: Number, weight: Number) -> None:
        """Add a value, itself a sum, and its weight. For a mean over N examples, these are N times the mean, and N."""
        if name in self._sums:
            before, before_weight = self._sums[name]
            value, weight = before + value, before_weight + weight
        self._sums[name] = value, weight

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sums) and self.numbers() == other.numbers()

    __hash__ = None  # type: ignore[assignment]

    def merge(self, others: Sums) -> None:
        """Add the sums and weights of others, name by name."""
        for name, (value, weight) in others._sums.items():
            before, before_weight = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = before + value, before_weight + weight

    def total(self, name: str) -> Number:
        """The sum for a name."""
        return self._sums[name][0]

    def means(self, prefix: str) -> dict[str, float]:
        """The means, as `prefix/name`; 0 where the weight is 0, as for examples of classes without weight."""
        return {f"{prefix}/{name}": value / weight if weight else 0.0 for name, value, weight in self}

    def numbers(self) -> dict[str, list[float]]:
        """The sums and weights as numbers. Continuing from them gives the same bits."""
        return {name: [value, weight] for name, value, weight in self}

    def reduce(self, reduce: Callable[[Tensor], None] | None) -> Sums:
        """The sums over all processes; with a single process `reduce` is None, and the sums are returned unchanged."""
        if reduce is None:
            return self
        numbers = self.numbers()
        vector = torch.tensor(list(numbers.values()), dtype=torch.float64)
        reduce(vector)
        return Sums({name: (value, weight) for name, (value, weight) in zip(numbers, vector.tolist(), strict=True)})

    def __iter__(self) -> Iterator[tuple[str, float, float]]:
        """Each name with its sum and weight, as numbers."""
        return ((name, float(value), float(weight)) for name, (value, weight) in self._sums.items())

    def __bool__(self) -> bool:
        return bool(self._sums)

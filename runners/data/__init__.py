"""Datasets by the name that `data.name` gives."""

from runners.data.dataset import Dataset, Examples, Source
from runners.data.idx import Idx, Mnist

SOURCES: dict[str, type[Source]] = {"mnist": Mnist, "idx": Idx}

__all__ = ["SOURCES", "Dataset", "Examples", "Source"]

"""Data: what examples are, how they are read, augmented and cut into batches. Imports files, pictures and `cnn`."""

from runners.data.dataset import Dataset, Description, Examples, Source

__all__ = ["Dataset", "Description", "Examples", "Source"]

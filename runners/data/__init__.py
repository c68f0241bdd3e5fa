"""Data: examples, and how they are read, augmented and split into batches. Imports files, pictures and `cnn`."""

from runners.data.dataset import Dataset, Description, Examples, Source

__all__ = ["Dataset", "Description", "Examples", "Source"]

"""What can be wrong with what a user gives. The commands turn these, and `cnn.ConfigError`, into exit code 2."""

from __future__ import annotations


class InputError(Exception):
    """Something given can't be used; the message names the place, the value and what to do."""


class DataError(InputError):
    """A dataset that is missing, broken, or too small for what was asked."""


class CheckpointError(InputError):
    """A checkpoint that is missing, broken, of another format, or of another network."""


class ImageError(InputError):
    """A picture that can't be read."""


class RunDirectoryError(InputError):
    """A run directory that can't be made or isn't one."""

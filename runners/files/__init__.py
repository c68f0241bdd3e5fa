"""The files of a run: its directory, checkpoints (read as data), metrics. Imports `cnn` and no other wing."""

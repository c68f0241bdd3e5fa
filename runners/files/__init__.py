"""The files of a run: its directory, checkpoints that are read as data, metrics. Imports `cnn` and no other wing."""

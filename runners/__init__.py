"""Experiments: configs, datasets, runs and their files. Imports `cnn`, and `cnn` never imports this."""

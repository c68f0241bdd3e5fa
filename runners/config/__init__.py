"""Configs: from what is typed and composed to checked values. Imports tasks, data, files and `cnn`."""

"""Configs: from command lines and YAML files to checked values. Imports tasks, trackers, data, files and `cnn`."""

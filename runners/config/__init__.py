"""Configs: from command lines and YAML files to checked values. Imports tasks, data, files and `cnn`."""

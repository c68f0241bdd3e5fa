"""Experiment trackers, each with its library in a process of its own. Imports `cnn`."""

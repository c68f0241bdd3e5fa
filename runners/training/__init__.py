"""From a checked config to a finished run: setup, loop, recorder, resume, evaluation.

Imports config, trackers, tasks, data, files.
"""

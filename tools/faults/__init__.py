"""Faults by the thousand: `python -m tools.faults` runs what the tests run a short form of, and prints figures."""

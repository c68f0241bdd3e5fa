"""Faults by the thousand: `python -m tests.faults` runs what the tests run a short form of, and prints figures."""

"""The arithmetic in plain torch operations: the text to read, and what runs on any device.

Files and functions have the names of the fronts, whose docstrings give formulas and shapes.
"""

"""The arithmetic in plain torch operations: the text to read, and what runs on any device.

The functions are those of the fronts, by file and name, whose docstrings have their formulas and shapes.
"""

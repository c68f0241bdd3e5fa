"""The loops, on numpy arrays, compiled by numba at first use and cached on disk.

Loops over three spatial axes also serve one and two: missing axes have size 1. The batch is the innermost, contiguous
axis, so inner loops vectorise however small the image is. Each index of a `parallel_for` writes to its own places, so
results don't depend on the number of threads.
"""

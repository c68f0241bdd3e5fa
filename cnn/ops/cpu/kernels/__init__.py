"""The loops, on numpy arrays, compiled by numba at first use and cached on disk.

Three spatial axes serve one, two and three: missing ones have size 1. The batch is the innermost, contiguous axis, so
every inner loop vectorises however small the image is. Each `prange` writes to places of its own: results don't depend
on the number of threads.
"""

"""Kernels in Triton for batch-last tensors.

Each adds up in an order that depends on shapes alone, never on the card or on which program comes first: no atomics.
"""

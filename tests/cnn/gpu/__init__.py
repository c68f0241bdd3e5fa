"""Kernels for GPUs: in Triton's interpreter and through its compiler without a GPU, and on one where there is one."""

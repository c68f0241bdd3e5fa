"""The compilation of kernels, and intrinsics for vectors that stay in registers."""

"""How kernels are compiled, and what gives them vectors that stay in registers."""

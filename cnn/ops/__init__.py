"""The arithmetic that layers share: pure functions on tensors, computed by the fastest backend or by the reference.

The functions of this package are fronts: formula, shapes and checks, once. `backend.py` chooses what computes.
"""

from cnn.ops.activation import add, add_relu, leaky_relu, leaky_relu_backward, relu, relu_backward
from cnn.ops.backend import (
    Backend,
    KernelSet,
    Unfit,
    kernels,
    load_backends,
    register,
    register_when_needed,
    remove,
    use_kernels,
)
from cnn.ops.capture import Recording, Tape, live, records, undone_at_a_fault
from cnn.ops.columns import col2im, im2col
from cnn.ops.compilers import compiler_versions
from cnn.ops.compiling import before_compiling
from cnn.ops.conv import add_conv_backward_weight, conv, conv_backward_input
from cnn.ops.counts import argmax, clear, count_hits
from cnn.ops.examples import take_examples
from cnn.ops.finite import require_finite, require_within
from cnn.ops.fused import norm_pool_relu, norm_pool_relu_backward, pool_relu_backward
from cnn.ops.linear import add_linear_backward_weight, linear, linear_backward_input
from cnn.ops.loss import cross_entropy
from cnn.ops.memory import constant, empty, empty_cache, write
from cnn.ops.norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_dx,
    batch_norm_sums,
    shared_batch_norm_backward,
    shared_moments,
)
from cnn.ops.optimizer import adam
from cnn.ops.padding import continued, continued_backward
from cnn.ops.pool import max_pool, max_pool_backward, window_sum, window_sum_backward
from cnn.ops.precision import Precision, set_precision
from cnn.ops.reference.norm import mean_of
from cnn.ops.rows import add_rows
from cnn.ops.threads import set_threads
from cnn.ops.values import Gradients, NotFinite, PoolReLU, Reduce, Route, Running
from cnn.ops.window import Window


def _cpu() -> Backend:
    from cnn.ops import cpu  # with numba: a program that uses the reference alone starts half a second sooner

    return cpu.BACKEND


def _cuda() -> Backend:
    from cnn.ops.requirements import require_triton

    require_triton()
    from cnn.ops import cuda

    return cuda.BACKEND


register_when_needed("cpu", _cpu)
register_when_needed("cuda", _cuda)

__all__ = [
    "Backend",
    "Gradients",
    "KernelSet",
    "NotFinite",
    "PoolReLU",
    "Precision",
    "Recording",
    "Reduce",
    "Route",
    "Running",
    "Tape",
    "Unfit",
    "Window",
    "adam",
    "add",
    "add_conv_backward_weight",
    "add_linear_backward_weight",
    "add_relu",
    "add_rows",
    "argmax",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_dx",
    "batch_norm_sums",
    "before_compiling",
    "clear",
    "col2im",
    "compiler_versions",
    "constant",
    "continued",
    "continued_backward",
    "conv",
    "conv_backward_input",
    "count_hits",
    "cross_entropy",
    "empty",
    "empty_cache",
    "im2col",
    "kernels",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward_input",
    "live",
    "load_backends",
    "max_pool",
    "max_pool_backward",
    "mean_of",
    "norm_pool_relu",
    "norm_pool_relu_backward",
    "pool_relu_backward",
    "records",
    "register",
    "relu",
    "relu_backward",
    "remove",
    "require_finite",
    "require_within",
    "set_precision",
    "set_threads",
    "shared_batch_norm_backward",
    "shared_moments",
    "take_examples",
    "undone_at_a_fault",
    "use_kernels",
    "window_sum",
    "window_sum_backward",
    "write",
]

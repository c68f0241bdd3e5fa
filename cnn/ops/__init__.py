"""The arithmetic that layers share: pure functions on tensors, on torch operations or compiled CPU kernels alike."""

from cnn.ops import convolution, direct
from cnn.ops.compiler import before_compiling
from cnn.ops.dispatch import (
    KernelSet,
    adam,
    batch_norm,
    batch_norm_backward,
    choose,
    col2im,
    cross_entropy,
    im2col,
    kernels,
    max_pool,
    max_pool_backward,
    relu,
    relu_backward,
    take_examples,
    use_kernels,
)
from cnn.ops.memory import empty
from cnn.ops.padding import continued, continued_backward
from cnn.ops.threads import set_threads
from cnn.ops.window import Window
from cnn.ops.window_sum import window_sum, window_sum_backward

conv = choose(convolution.conv, direct.conv)
conv_backward_input = choose(convolution.conv_backward_input, direct.conv_backward_input)
add_conv_backward_weight = choose(convolution.add_conv_backward_weight, direct.add_conv_backward_weight)

__all__ = [
    "KernelSet",
    "Window",
    "adam",
    "add_conv_backward_weight",
    "batch_norm",
    "batch_norm_backward",
    "before_compiling",
    "col2im",
    "continued",
    "continued_backward",
    "conv",
    "conv_backward_input",
    "cross_entropy",
    "empty",
    "im2col",
    "kernels",
    "max_pool",
    "max_pool_backward",
    "relu",
    "relu_backward",
    "set_threads",
    "take_examples",
    "use_kernels",
    "window_sum",
    "window_sum_backward",
]

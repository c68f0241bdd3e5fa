"""The arithmetic on a GPU, in Triton: the functions here allocate and choose tiles, the kernels are in `kernels/`.

Files and functions have the names of those in `reference/`, which computes what is missing here.
"""

from __future__ import annotations

from typing import Any

import torch
from triton import knobs

from cnn.ops import compiling
from cnn.ops.backend import Backend
from cnn.ops.cuda import activation, conv, counts, examples, fused, guard, linear, loss, norm, optimizer, pool, rows


def serves(device: str, dtype: torch.dtype) -> bool:
    """Whether kernels can be compiled for such tensors."""
    return device == "cuda" and dtype in (torch.float32, torch.float64)


FUNCTIONS = (
    *(
        activation.add,
        activation.add_relu,
        activation.relu,
        activation.relu_backward,
        activation.leaky_relu,
        activation.leaky_relu_backward,
    ),
    *(conv.conv, conv.conv_backward_input, conv.add_conv_backward_weight),
    counts.count_hits,
    examples.take_examples,
    *(fused.norm_pool_relu, fused.norm_pool_relu_backward),
    *(guard.note_not_finite, guard.note_strays, guard.put_back, guard.save),
    *(linear.linear, linear.linear_backward_input, linear.add_linear_backward_weight),
    loss.cross_entropy,
    *(norm.batch_norm, norm.batch_norm_backward),
    optimizer.adam,
    *(pool.max_pool, pool.max_pool_backward, pool.window_sum, pool.window_sum_backward),
    rows.add_rows,
)
BACKEND = Backend("cuda", serves, {function.__name__: function for function in FUNCTIONS}, priority=1)


def _announce(*, cache_hit: bool, **_: Any) -> None:
    if not cache_hit:
        compiling.compiling()


if knobs.compilation.listener is None:
    knobs.compilation.listener = _announce

"""Try kernels in Triton's interpreter: TRITON_INTERPRET=1 python -m tests.cnn.gpu.interpreted PART PARTS.

A process of its own: Triton decides as a kernel is defined whether it will be interpreted. Prints a JSON line for each
case.
"""

from __future__ import annotations

import json
import sys
import warnings

import torch

from tests.cnn.gpu.cases import CASES
from tests.cnn.gpu.trying import Where, run

BATCH = 19
"""Odd, so that nothing is a whole number of vectors."""

IN_DOUBLE = "convolution 1d", "norm, pool 2x2 and ReLU, training", "cross entropy", "adam"
"""What is also tried in float64: its tiles are small, and the interpreter takes as long for each of them."""


def tried(name: str) -> list[torch.dtype]:
    """The dtypes in which a case is tried."""
    return [torch.float32, *([torch.float64] if any(part in name for part in IN_DOUBLE) else [])]


def main(part: int, parts: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # numpy's, of the infinities and NaNs in some cases
    for name in list(CASES)[part::parts]:
        for dtype in tried(name):
            errors = run(name, Where("cpu", dtype, BATCH))
            print(json.dumps({"case": name, "dtype": str(dtype), "errors": errors}), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""What kernels for GPUs need of a machine."""

from __future__ import annotations

import os
import re
from shutil import which

import torch

from cnn.ops.backend import Unfit

TRITON = (3, 6)
CAPABILITY = (8, 0)
COMPILERS = "cc", "gcc", "clang"


def require_triton() -> None:
    """Raise Unfit if Triton is missing or too old, if it finds no C compiler, or if the GPU is too old for it."""
    try:
        import triton
    except ImportError:
        raise Unfit("Triton is missing, which torch for CUDA brings: pip install triton") from None
    version = tuple(int(number) for number in re.findall(r"\d+", triton.__version__)[:2])
    if version < TRITON:
        raise Unfit(f"Triton {triton.__version__} is too old: torch 2.11 or newer brings one that works")
    if not os.environ.get("CC") and not any(map(which, COMPILERS)):
        raise Unfit("Triton needs a C compiler: install gcc, or give its path as CC")
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < CAPABILITY:
        name = torch.cuda.get_device_name()
        raise Unfit(f"{name} is too old for kernels in Triton, which need compute capability 8.0")

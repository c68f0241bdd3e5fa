"""The device of a run: its name, its memory, what computes on it, and what is noted of that as training starts."""

from __future__ import annotations

import platform

import numpy as np
import torch

from cnn import ops
from runners.config.settings import Settings

CPU = torch.device("cpu")


def gpu_name(device: torch.device) -> str | None:
    """The name of the card; None if the device isn't one of CUDA's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def described(device: str, name: str | None) -> str:
    """A device and the name of its card, if both are known: `cuda (NVIDIA L4)`."""
    return f"{device} ({name})" if device and name else device


def reset_peak_memory(device: torch.device) -> None:
    """Measure the peak of a GPU's memory from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that tensors have taken of a GPU's memory at a time; None for other devices."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def versions(device: torch.device) -> dict[str, str]:
    """The versions of everything that a run's numbers depend on."""
    packages = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return packages | ops.compiler_versions(device.type)


def notes(settings: Settings, device: torch.device) -> list[str]:
    """What a run does in another way than its config or its device lets expect."""
    reasons = ops.load_backends(device.type) if settings.kernels == "compiled" and device.type == "cuda" else []
    slower = [f"{reason}; plain torch operations are used on the GPU, which are slower" for reason in reasons]
    if settings.precision == "float32":
        return slower
    cause = _why_full_precision(settings, device) or ("without compiled kernels" if reasons else "")
    return slower + ([_without_effect(settings, cause)] if cause else [])


def _why_full_precision(settings: Settings, device: torch.device) -> str:
    """What of a config keeps `precision` from having an effect, as the end of a sentence; empty for nothing."""
    if device.type != "cuda":
        return f"on device {device.type}"
    if settings.kernels == "reference":
        return "with kernels=reference"
    return "" if settings.dtype == "float32" else f"with dtype={settings.dtype}"


def _without_effect(settings: Settings, cause: str) -> str:
    return f"precision={settings.precision} has no effect {cause}: products are computed in {settings.dtype}"

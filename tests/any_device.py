"""Runs work on a device without values, and finds what a CUDA graph couldn't capture.

`meta` stands for any device that isn't the CPU: its tensors have shapes and dtypes, but nothing can be read from them,
and no GPU is needed. While a CUDA graph is captured, no value is read and nothing is copied between host and device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cnn import Sequential, ops
from cnn.graphs.graph import FlatParameters

DEVICE = torch.device("meta")
FROM_VALUES = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
"""What copies Python's numbers to a device without an operation that a dispatch mode sees."""


class Uncapturable(AssertionError):
    """Something that can't be part of a CUDA graph. No RuntimeError, for which `ops.cross_entropy` has an answer."""


class Judge:
    """Raises Uncapturable, unless it is suspended."""

    suspended = False

    def check(self, fine: bool, what: str) -> None:
        if not fine and not self.suspended:
            raise Uncapturable(what)


class Operations(TorchDispatchMode):
    """Judges every operation by its tags and by the devices of its tensors."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping it would import it, which takes a second

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs, name, check = kwargs or {}, func.overloadpacket.__name__, self.judge.check
        check(torch.Tag.data_dependent_output not in func.tags, f"a value is read by Python ({name})")
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [index.dtype in (torch.bool, torch.uint8) for index in args[1] if index is not None]
            check(not any(masks), f"a shape depends on values ({name})")
        else:
            check(torch.Tag.dynamic_output_shape not in func.tags, f"a shape depends on values ({name})")
        given = devices(args, kwargs)
        check(len(given) < 2, f"tensors of several devices meet ({name})")
        wanted = {torch.device(kwargs["device"])} if kwargs.get("device") else set()
        check(not given or given >= wanted, f"a tensor is copied between devices ({name})")
        return func(*args, **kwargs)


class Functions(TorchFunctionMode):
    """Judges the functions of torch whose work isn't an operation of its own."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in FROM_VALUES and not (func is torch.as_tensor and isinstance(args[0], Tensor)):
            self.judge.check(result.device != DEVICE, f"values of Python are copied to the device ({func.__name__})")
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            listed = args[0].device == DEVICE and any(isinstance(part, list) for part in parts)
            self.judge.check(not listed, "values of Python are copied to the device (a list as an index)")
        return result


def devices(*values: Any) -> set[torch.device]:
    """The devices of all tensors in a structure."""
    found: set[torch.device] = set()
    for value in values:
        if isinstance(value, Tensor):
            found.add(value.device)
        elif isinstance(value, (tuple, list)):
            found |= devices(*value)
        elif isinstance(value, Mapping):
            found |= devices(*value.values())
    return found


def run_captured(work: Callable[[], object]) -> None:
    """Do some work on the device with the reference kernels, then again: as a capture, which is judged.

    The first time, work may make what it keeps. Raises Uncapturable for what isn't exempt: the functions of `ops.live`,
    and the checks of values in `ops`, which are other kernels on a GPU.
    """
    judge = Judge()
    judge.suspended = True

    def live(function: Callable[[Any], object], argument: Any) -> None:
        before, judge.suspended = judge.suspended, True
        try:
            function(argument)
        finally:
            judge.suspended = before

    finite = "cnn.ops.reference.finite"
    with (
        ops.kernels("reference"),
        mock.patch.object(ops, "live", live),
        mock.patch(f"{finite}.require_finite", return_value=None),
        mock.patch(f"{finite}.require_within", return_value=None),
        Functions(judge),
        Operations(judge),
    ):
        work()
        judge.suspended = False
        work()


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor on the device."""
    return torch.empty(shape, dtype=dtype, device=DEVICE)


def moved(network: Sequential) -> Sequential:
    """Move a network to the device, in place."""
    flat = network.flat
    network.flat = FlatParameters(flat.parameters, flat.data.dtype, DEVICE, flat.frozen)
    for _, buffer in network.named_buffers():
        buffer.data = buffer.data.to(DEVICE)
    return network

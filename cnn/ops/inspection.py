"""What in a call can't become a CUDA graph, found while the call runs as usual.

A capture that fails leaves torch's random numbers unusable, so a call is inspected before it is captured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WRITTEN_BY_INDEX = {"index_put", "index_put_", "_index_put_impl_"}
"""What a GPU does for a mask only after it has counted its places."""


class Inspection(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which each operation of torch is looked at. `refused`: the first one that can't be captured."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.refused = ""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping it would import it, which takes a second

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose operations aren't looked at."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            self.__enter__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.refuse(self._reason(func, args, kwargs, result))
        return result

    def refuse(self, reason: str) -> None:
        """Note a reason, if there is one and it is the first."""
        self.refused = self.refused or reason

    def _reason(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> str:
        if reason := python_depends_on(func, args, result):
            return reason
        name = func.overloadpacket.__name__
        if name in WRITTEN_BY_INDEX and not _is_by_position(args[1]):
            return f"what is written depends on values ({name})"
        used = [*tensors((result, args, kwargs))]
        if name == "fill_" and len(used) > 1 and not used[-1].dim():
            used.pop()  # of x[0] = 1.0, whose number torch puts on the CPU and hands to the kernel
        if any(tensor.device.type != self.device.type for tensor in used):
            return f"a tensor isn't on the device ({name})"
        if name == "lift_fresh" and self.device.type != "cpu":
            return "a tensor is made from numbers of Python's"
        return ""


def python_depends_on(func: Any, args: Sequence[Any], result: Any) -> str:
    """Why what Python does next depends on values that an operation computed or picks by; empty if it doesn't."""
    name = func.overloadpacket.__name__
    if not func._schema.is_mutable and not all(isinstance(value, Tensor) for value in _each(result)):
        return f"a value is read by Python ({name})"
    if torch.Tag.dynamic_output_shape in func.tags and not (name == "index" and _is_by_position(args[1])):
        return f"a shape depends on values ({name})"
    return ""


def _is_by_position(indices: Sequence[Tensor | None]) -> bool:
    """Whether values are picked by their positions, and not by a mask."""
    return all(index is None or index.dtype not in (torch.bool, torch.uint8) for index in indices)


def _each(result: Any) -> Sequence[Any]:
    return result if isinstance(result, (tuple, list)) else [result]


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a structure of arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))

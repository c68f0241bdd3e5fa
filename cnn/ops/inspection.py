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
        self.refused = self.refused or self._reason(func, args, kwargs, result)
        return result

    def _reason(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> str:
        name = func.overloadpacket.__name__
        outputs = list(tensors(result))
        if not outputs and not func._schema.is_mutable:
            return f"a value is read by Python ({name})"
        if torch.Tag.dynamic_output_shape in func.tags and not is_by_position(name, args):
            return f"a shape depends on values ({name})"
        used = [*outputs, *tensors((args, kwargs))]
        if any(tensor.device.type != self.device.type for tensor in used):
            return f"a tensor isn't on the device ({name})"
        if name == "lift_fresh" and self.device.type != "cpu":
            return "a tensor is made from numbers of Python's"
        return ""


def is_by_position(name: str, args: Sequence[Any]) -> bool:
    """Whether an operation picks values by their positions, and not by a mask."""
    return name == "index" and all(index is None or index.dtype not in (torch.bool, torch.uint8) for index in args[1])


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a structure of arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))

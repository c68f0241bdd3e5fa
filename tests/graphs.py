"""A stand-in for CUDA graphs on the CPU: operations of torch, recorded without an effect and then done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cnn.ops.inspection import tensors

R = TypeVar("R")
UNINITIALISED = {"empty", "empty_like", "empty_strided", "new_empty"}


class Event:
    """Known to be over only once somebody has waited for it, as if the device were always late."""

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        pass


class StandIn:
    """Captures operations on the CPU. A capture changes no tensor that was there before, and no generator."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0

    def capture(self, call: Callable[[], R], generators: Sequence[torch.Generator]) -> tuple[R, Callable[[], None]]:
        states = [generator.get_state() for generator in generators]
        with Operations() as operations:
            result = call()
        operations.undo()
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            operations.repeat()

        return result, replay

    def event(self) -> Event:
        return Event()

    def pinned(self, like: Tensor) -> Tensor:
        return torch.empty_like(like)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes operations with their tensors, and the values that were in the memory that they write to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[Callable[[], object]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for tensor in tensors((args, kwargs)):
                whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
                self._before.setdefault(whole.data_ptr(), (whole, whole.clone()))
        result = func(*args, **kwargs)
        if func._schema.is_mutable:
            self._calls.append(lambda: func(*args, **kwargs))
        elif func.overloadpacket.__name__ not in UNINITIALISED and not func.is_view:
            homes = [*tensors(result)]
            self._calls.append(lambda: [a.copy_(b) for a, b in zip(homes, tensors(func(*args, **kwargs)), strict=True)])
        return result

    def undo(self) -> None:
        for whole, before in self._before.values():
            whole.copy_(before)
        self._before.clear()

    def repeat(self) -> None:
        for call in self._calls:
            call()

"""Calls of compiled kernels as lists that one native function works through, without Python and without its lock.

Numba's native functions take an address for the result, one for an exception, and the arguments, of which an array is
seven or more numbers. A call is a row of 64-bit slots: the address of a bridge, the address of the function, whether a
result other than 0 ends the program, and the arguments. A bridge unpacks a row into a call; there is one for each list
of argument types.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np
from llvmlite import ir
from numba import types

from cnn.ops import memory

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = I8.as_pointer()
NOTHING = -2
"""The status of a native function that returns None."""

BRIDGE, FUNCTION, CHECKED, RESULT = range(4)
"""The first slots of a row; the arguments follow after the result and the exception."""

Fault = Callable[[int], Exception]


@dataclass(frozen=True)
class Call:
    """One call of a kernel, with what keeps its arguments' memory alive."""

    kind: ir.FunctionType
    row: np.ndarray[Any, Any]
    result: np.ndarray[Any, Any]
    kept: list[Any]
    fault: Fault | None

    @classmethod
    def of(cls, kernel: Any, arguments: Sequence[Any], fault: Fault | None, arena: memory.Arena) -> Call:
        """A call of a kernel that has been compiled for these arguments."""
        compiled = kernel.overloads[tuple(kernel.typeof_pyval(argument) for argument in arguments)]
        signature, context = compiled.signature, compiled.target_context
        kind = context.call_conv.get_function_type(signature.return_type, signature.args)
        result, exception = np.zeros(2, np.int64), np.zeros(1, np.int64)
        flat: list[Any] = [result.ctypes.data, exception.ctypes.data]
        kept: list[Any] = [compiled, exception]
        for each, argument in zip(signature.args, arguments, strict=True):
            _flatten(each, argument, flat, kept, arena)
        address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        packed = (_slot(*both) for both in zip(kind.args, flat, strict=True))
        slots = [0, address, int(fault is not None), *packed]
        return cls(kind, np.array(slots, np.int64), result, kept, fault)


def _flatten(kind: Any, value: Any, flat: list[Any], kept: list[Any], arena: memory.Arena) -> None:
    """Append an argument as native functions take it."""
    if isinstance(kind, types.Array):
        if not arena.holds(value.ctypes.data):
            kept.append(value)
        flat += [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    elif isinstance(kind, types.BaseTuple):
        for inner, item in zip(kind, value, strict=True):
            _flatten(inner, item, flat, kept, arena)
    else:
        flat.append(value)


def _slot(kind: Any, value: Any) -> int:
    """A number as 64 bits."""
    if isinstance(kind, ir.DoubleType):
        return int(np.float64(value).view(np.int64))
    if isinstance(kind, ir.FloatType):
        return int(np.float32(value).view(np.int32))
    return int(value)


class Program:
    """Calls that run one after the other."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        for call in calls:
            call.row[BRIDGE] = bridge(str(call.kind), call.kind)
        self._rows = np.array([call.row.ctypes.data for call in calls], np.int64)
        self._run = functools.partial(_runner(), self._rows.ctypes.data, len(calls))

    def __call__(self, _: object) -> None:
        """Run them. Raises the fault of the first one that finds one, without running those after it."""
        stopped = self._run()
        if stopped:
            call = self._calls[stopped - 1]
            if call.fault is None:
                raise RuntimeError("a compiled kernel failed while a step was replayed")
            raise call.fault(int(call.result[0]))


_BRIDGES: dict[str, int] = {}
_ENGINES: list[Any] = []


def bridge(name: str, kind: ir.FunctionType) -> int:
    """The address of the function that calls a native function of this type with the slots of a row."""
    if name not in _BRIDGES:
        module = ir.Module("bridge")
        function = ir.Function(module, ir.FunctionType(I32, [I64.as_pointer()]), "bridge")
        builder = ir.IRBuilder(function.append_basic_block())

        def slot(index: int) -> Any:
            return builder.load(builder.gep(function.args[0], [ir.Constant(I64, index)]))

        given = [_unpacked(builder, type_, slot(RESULT + index)) for index, type_ in enumerate(kind.args)]
        status = builder.call(builder.inttoptr(slot(FUNCTION), kind.as_pointer()), given)
        fine = builder.or_(*(builder.icmp_signed("==", status, ir.Constant(I32, code)) for code in (0, NOTHING)))
        value = builder.load(builder.inttoptr(slot(RESULT), I64.as_pointer()))
        found = builder.icmp_signed("!=", builder.and_(value, builder.neg(slot(CHECKED))), ir.Constant(I64, 0))
        builder.ret(builder.zext(builder.or_(builder.not_(fine), found), I32))
        _BRIDGES[name] = _compiled(module, "bridge")
    return _BRIDGES[name]


def _unpacked(builder: ir.IRBuilder, kind: Any, value: Any) -> Any:
    if isinstance(kind, ir.PointerType):
        return builder.inttoptr(value, kind)
    if isinstance(kind, ir.DoubleType):
        return builder.bitcast(value, kind)
    if isinstance(kind, ir.FloatType):
        return builder.bitcast(builder.trunc(value, I32), kind)
    return value if kind.width == 64 else builder.trunc(value, kind)


@functools.cache
def _runner() -> Any:
    """The function that works through rows: it returns the number of the call that stopped it, or 0."""
    module = ir.Module("runner")
    function = ir.Function(module, ir.FunctionType(I64, [I64.as_pointer(), I64]), "run")
    rows, count = function.args
    entry, loop, step, stop, done = (
        function.append_basic_block(name) for name in ("entry", "loop", "step", "stop", "done")
    )
    zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
    ir.IRBuilder(entry).branch(loop)
    builder = ir.IRBuilder(loop)
    index = builder.phi(I64)
    index.add_incoming(zero, entry)
    builder.cbranch(builder.icmp_signed("<", index, count), step, done)
    builder = ir.IRBuilder(step)
    row = builder.inttoptr(builder.load(builder.gep(rows, [index])), I64.as_pointer())
    target = builder.inttoptr(builder.load(row), ir.FunctionType(I32, [I64.as_pointer()]).as_pointer())
    status = builder.call(target, [row])
    following = builder.add(index, one)
    index.add_incoming(following, step)
    builder.cbranch(builder.icmp_signed("==", status, ir.Constant(I32, 0)), loop, stop)
    ir.IRBuilder(stop).ret(following)
    ir.IRBuilder(done).ret(zero)
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(_compiled(module, "run"))


def _compiled(module: ir.Module, name: str) -> int:
    module.triple = llvm.get_process_triple()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=1)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
    engine.finalize_object()
    _ENGINES.append(engine)
    return int(engine.get_function_address(name))

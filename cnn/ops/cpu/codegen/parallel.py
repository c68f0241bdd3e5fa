"""`parallel_for`: a loop that the threads share, for kernels.

It uses the threads of numba's threading layer, but not its parallel lowering, which takes most of the time that it
takes to compile a kernel, and takes Python's lock for a moment in every loop.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

INTEGER, POINTER = ir.IntType(64), ir.IntType(8).as_pointer()


def start_threads() -> None:
    """Start the threading layer, whose functions compiled code refers to by name. A fork mustn't run kernels then."""
    numba.get_num_threads()


@intrinsic
def parallel_for(typing: Any, count: Any, body: Any, arguments: Any) -> Any:
    """Call body(start, stop, *arguments) for ranges that cover 0 to count, one for each thread.

    The ranges depend on the number of threads: the body must compute each of its indices independently of the others.
    It is a `helper`, and must not raise.
    """
    start_threads()
    inner = (types.intp, types.intp, *arguments.types)
    body.get_call_type(typing, inner, {})
    compiled = body.dispatcher.overloads[inner]

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        count, _, packed = values
        context.active_code_library.add_linking_library(compiled.library)
        threads = builder.call(_external(builder, INTEGER, "get_num_threads", []), [])
        one = ir.Constant(INTEGER, 1)
        pieces = builder.select(builder.icmp_signed("<=", count, one), one, threads)  # some may be empty
        shared = cgutils.alloca_once(builder, ir.LiteralStructType([INTEGER, INTEGER, packed.type]))
        for index, value in enumerate((count, pieces, packed)):
            builder.store(value, cgutils.gep_inbounds(builder, shared, 0, index))
        piece = _piece(context, builder.module, compiled, shared.type)
        data = builder.bitcast(shared, POINTER)
        first = cgutils.alloca_once_value(builder, ir.Constant(POINTER, None))
        number = cgutils.alloca_once_value(builder, pieces)
        with builder.if_else(builder.icmp_signed("==", pieces, one)) as (alone, together):
            with alone:
                builder.call(piece, [first, number, ir.Constant(INTEGER.as_pointer(), None), data])
            with together:
                _run_on_threads(builder, piece, (first, number, data), threads)
        return context.get_dummy_value()

    return types.void(count, body, arguments), emit


def _external(builder: Any, result: Any, name: str, arguments: list[Any]) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _piece(context: Any, module: Any, compiled: Any, shared: Any) -> Any:
    """A function as the threading layer calls it: (first, count, unused, shared data) for some of the pieces."""
    name = f"pieces.{compiled.fndesc.mangled_name}"
    if name in module.globals:
        return module.globals[name]
    places = [POINTER.as_pointer(), INTEGER.as_pointer(), INTEGER.as_pointer(), POINTER]
    piece = ir.Function(module, ir.FunctionType(ir.VoidType(), places), name)
    piece.linkage = "internal"
    builder = ir.IRBuilder(piece.append_basic_block("entry"))
    first = builder.ptrtoint(builder.load(piece.args[0]), INTEGER)
    last = builder.add(first, builder.load(piece.args[1]))
    data = builder.bitcast(piece.args[3], shared)
    count, pieces, packed = (builder.load(cgutils.gep_inbounds(builder, data, 0, index)) for index in range(3))
    start = builder.sdiv(builder.mul(first, count), pieces)
    stop = builder.sdiv(builder.mul(last, count), pieces)
    kinds = compiled.signature.args
    given = [start, stop, *cgutils.unpack_tuple(builder, packed, len(kinds) - 2)]
    function = context.declare_function(module, compiled.fndesc)
    context.call_conv.call_function(builder, function, compiled.signature.return_type, kinds, given)
    builder.ret_void()
    return piece


def _run_on_threads(builder: Any, piece: Any, places: tuple[Any, Any, Any], threads: Any) -> None:
    """The threading layer adds `step` to the address `first` for each piece: the address is the piece's number."""
    first, number, data = places
    one = ir.Constant(INTEGER, 1)
    step = cgutils.alloca_once_value(builder, one)
    kinds = [POINTER, first.type, number.type, step.type, POINTER, INTEGER, INTEGER, ir.IntType(32)]
    run = _external(builder, ir.VoidType(), "numba_parallel_for", kinds)
    function, none = builder.bitcast(piece, POINTER), ir.Constant(INTEGER, 0)
    builder.call(run, [function, first, number, step, data, none, one, builder.trunc(threads, ir.IntType(32))])

"""Arithmetic on blocks of vectors (`vectors.py`), value by value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from cnn.ops.cpu.codegen.emitter import Block, Emitter


def _by_vectors(compute: Callable[..., Any]) -> Any:
    """An intrinsic that computes each vector of a block from those of its arguments; numbers are broadcast."""

    def define(typing: Any, block: Any, *others: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emitter = Emitter(context, builder, block)
            columns = []
            for kind, argument in zip(signature.args, arguments, strict=True):
                if isinstance(kind, Block):
                    columns.append([vector for _, _, vector in emitter.vectors(argument)])
                else:
                    columns.append([emitter.spread(argument)] * (block.rows * block.columns))
            return emitter.block([compute(emitter, *vectors) for vectors in zip(*columns, strict=True)])

        return block(block, *(other if isinstance(other, Block) else block.dtype for other in others)), emit

    return define


@intrinsic
def plus(typing: Any, a: Any, b: Any) -> Any:
    """a + b."""
    return _by_vectors(lambda emitter, a, b: emitter.builder.fadd(a, b))(typing, a, b)


@intrinsic
def minus(typing: Any, a: Any, b: Any) -> Any:
    """a - b."""
    return _by_vectors(lambda emitter, a, b: emitter.builder.fsub(a, b))(typing, a, b)


@intrinsic
def times(typing: Any, a: Any, b: Any) -> Any:
    """a * b."""
    return _by_vectors(lambda emitter, a, b: emitter.builder.fmul(a, b))(typing, a, b)


@intrinsic
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    return _by_vectors(Emitter.multiply_add)(typing, a, b, c)


@intrinsic
def where_positive(typing: Any, a: Any, b: Any) -> Any:
    """a where b > 0 or b is NaN, else 0."""

    def compute(emitter: Emitter, a: Any, b: Any) -> Any:
        nothing = ir.Constant(emitter.vector, None)
        return emitter.builder.select(emitter.builder.fcmp_unordered(">", b, nothing), a, nothing)

    return _by_vectors(compute)(typing, a, b)


@intrinsic
def where_equal(typing: Any, a: Any, numbers: Any, at: Any, number: Any) -> Any:
    """a where the integers numbers[at], numbers[at + 1], ... equal a number, else 0; `a` is a single vector."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block, array, first, wanted = arguments
        emitter = Emitter(context, builder, a)
        integers = ir.VectorType(context.get_value_type(numbers.dtype), a.lanes)
        place = builder.bitcast(emitter.address(numbers, array, first), integers.as_pointer())
        found = builder.load(place, align=numbers.dtype.bitwidth // 8)
        equal = builder.icmp_unsigned("==", found, emitter.spread(wanted))
        vector = builder.extract_value(block, 0)
        return emitter.block([builder.select(equal, vector, ir.Constant(emitter.vector, None))])

    return a(a, numbers, types.intp, numbers.dtype), emit

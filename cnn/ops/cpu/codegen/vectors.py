"""Intrinsics for vectors that stay in registers, which numba can't express.

In a loop over numbers, the compiler decides which of them stay in registers. A matrix product is only fast if all of
its running sums do, so here a block of vectors is a single value: `rows` times `columns` of them, made by `zeros`,
`repeated` or `load`, changed by the `add_...` functions and those of `arithmetic.py`, and written by `store` or
`add_totals`. LLVM turns each into straight-line code for the machine; with narrower registers it takes more
instructions.

Arrays are flat and contiguous, indices count values. Bounds aren't checked.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnn.ops.cpu.codegen.emitter import VECTOR_BYTES, Block, Emitter, number


@intrinsic(prefer_literal=True)
def zeros(typing: Any, like: Any, rows: Any, columns: Any) -> Any:
    """A block of zeros with the dtype of the array `like`; rows and columns are constants."""
    block = Block(like.dtype, rows.literal_value, columns.literal_value)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(block), None)

    return block(like, rows, columns), emit


@intrinsic(prefer_literal=True)
def repeated(typing: Any, values: Any, at: Any, like: Any, rows: Any, columns: Any) -> Any:
    """A block whose row r is filled with values[at + r]."""
    block = Block(like.dtype, rows.literal_value, columns.literal_value)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emitter = Emitter(context, builder, block)
        places = [emitter.address(values, arguments[0], arguments[1], row) for row in range(block.rows)]
        each = [emitter.spread(builder.load(place)) for place in places]
        return emitter.block([vector for vector in each for _ in range(block.columns)])

    return block(values, types.intp, like, rows, columns), emit


@intrinsic
def add_scaled(
    typing: Any, block: Any, scales: Any, scales_at: Any, scales_stride: Any, x: Any, x_at: Any, count: Any
) -> Any:
    """block[r, v] += scales[scales_at + r * scales_stride] * the v-th vector of x from x_at.

    With a `count`, only that many values of x are read, and there is one vector.
    """
    whole = count == types.none

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, scales_array, first_scale, step, x_array, first, values = arguments
        emitter = Emitter(context, builder, block)
        start = emitter.address(x, x_array, first)
        if whole:
            vectors = [emitter.load(emitter.further(start, column * block.lanes)) for column in range(block.columns)]
        else:
            vectors = [emitter.load_some(start, values)]
        for row in range(block.rows):
            scale = emitter.spread(builder.load(emitter.address(scales, scales_array, first_scale, (row, step))))
            for column, vector in enumerate(vectors):
                result = emitter.add_product(result, row, column, scale, vector)
        return result

    counted = count if whole else types.intp
    return block(block, scales, types.intp, types.intp, x, types.intp, counted), emit


@intrinsic
def add_products(
    typing: Any, block: Any, a: Any, a_at: Any, a_stride: Any, b: Any, b_at: Any, b_stride: Any, count: Any
) -> Any:
    """block[r, v] += the vector of a at a_at + r * a_stride * the vector of b at b_at + v * b_stride, lane by lane.

    With a `count`, only the first `count` lanes are used.
    """
    whole = count == types.none

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, a_array, a_first, a_step, b_array, b_first, b_step, lanes_used = arguments
        emitter = Emitter(context, builder, block)

        def load(place: Any) -> Any:
            return emitter.load(place) if whole else emitter.load_some(place, lanes_used)

        right = [load(emitter.address(b, b_array, b_first, (v, b_step))) for v in range(block.columns)]
        for row in range(block.rows):
            left = load(emitter.address(a, a_array, a_first, (row, a_step)))
            for column, vector in enumerate(right):
                result = emitter.add_product(result, row, column, left, vector)
        return result

    integer = types.intp
    counted = count if whole else integer
    return block(block, a, integer, integer, b, integer, integer, counted), emit


@intrinsic
def store(typing: Any, block: Any, y: Any, y_at: Any, stride: Any, count: Any) -> Any:
    """Write row r of the block to y from y_at + r * stride; with a `count`, that many values of its only vector."""
    whole = count == types.none

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, y_array, first, step, values = arguments
        emitter = Emitter(context, builder, block)
        for row, column, vector in emitter.vectors(value):
            place = emitter.address(y, y_array, first, (row, step), column * block.lanes)
            if whole:
                emitter.store(vector, place)
            else:
                emitter.store_some(vector, place, values)
        return context.get_dummy_value()

    counted = count if whole else types.intp
    return types.void(block, y, types.intp, types.intp, counted), emit


@intrinsic
def will_load(typing: Any, block: Any, x: Any, x_at: Any) -> Any:
    """Prefetch a row of a block, from x_at. It may lie outside of x."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emitter = Emitter(context, builder, block)
        for column in range(block.columns):
            emitter.fetch(emitter.address(x, arguments[1], arguments[2], column * block.lanes), to_write=False)
        return context.get_dummy_value()

    return types.void(block, x, types.intp), emit


@intrinsic
def will_store(typing: Any, block: Any, y: Any, y_at: Any, stride: Any) -> Any:
    """Prefetch the memory that `store` will write: a store that misses the cache keeps those after it waiting."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, y_array, first, step = arguments
        emitter = Emitter(context, builder, block)
        for row, column, _ in emitter.vectors(value):
            emitter.fetch(emitter.address(y, y_array, first, (row, step), column * block.lanes), to_write=True)
        return context.get_dummy_value()

    return types.void(block, y, types.intp, types.intp), emit


@intrinsic
def add_to(typing: Any, block: Any, y: Any, y_at: Any, stride: Any, skip: Any, count: Any) -> Any:
    """Add row r of the block to y from y_at + r * stride, but for the first `skip` rows; `count` as in `store`."""
    whole = count == types.none

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, y_array, first, step, skipped, values = arguments
        emitter = Emitter(context, builder, block)
        for row in range(block.rows):
            with builder.if_then(builder.icmp_signed(">=", number(row), skipped)):
                for column in range(block.columns):
                    vector = builder.extract_value(value, row * block.columns + column)
                    place = emitter.address(y, y_array, first, (row, step), column * block.lanes)
                    if whole:
                        emitter.store(builder.fadd(emitter.load(place), vector), place)
                    else:
                        emitter.store_some(builder.fadd(emitter.load_some(place, values), vector), place, values)
        return context.get_dummy_value()

    counted = count if whole else types.intp
    return types.void(block, y, types.intp, types.intp, types.intp, counted), emit


@intrinsic
def add_totals(
    typing: Any, block: Any, y: Any, y_at: Any, row_stride: Any, column_stride: Any, skip_rows: Any, skip_columns: Any
) -> Any:
    """y[y_at + r * row_stride + v * column_stride] += the sum over the lanes of block[r, v].

    Skips the first `skip_rows` rows and `skip_columns` columns.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, y_array, first, row_step, column_step, *skip = arguments
        emitter = Emitter(context, builder, block)
        for row, column, vector in emitter.vectors(value):
            place = emitter.address(y, y_array, first, (row, row_step), (column, column_step))
            counts = [
                builder.icmp_signed(">=", number(at), least) for at, least in zip((row, column), skip, strict=True)
            ]
            with builder.if_then(builder.and_(*counts)):  # what is skipped may be another thread's
                builder.store(builder.fadd(builder.load(place), emitter.total(vector)), place)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(block, y, integer, integer, integer, integer, integer), emit


@intrinsic
def width(typing: Any, like: Any) -> Any:
    """The number of values of this array's dtype in a vector, a constant."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return number(VECTOR_BYTES * 8 // like.dtype.bitwidth)

    return types.intp(like), emit


@intrinsic(prefer_literal=True)
def load(typing: Any, x: Any, x_at: Any, columns: Any) -> Any:
    """A block of one row: the values of x from x_at."""
    block = Block(x.dtype, 1, columns.literal_value)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emitter = Emitter(context, builder, block)
        places = [
            emitter.address(x, arguments[0], arguments[1], column * block.lanes) for column in range(block.columns)
        ]
        return emitter.block([emitter.load(place) for place in places])

    return block(x, types.intp, columns), emit


@intrinsic
def sum_of(typing: Any, block: Any) -> Any:
    """The sum of all values of a block."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emitter = Emitter(context, builder, block)
        vectors = [vector for _, _, vector in emitter.vectors(arguments[0])]
        return emitter.total(functools.reduce(builder.fadd, vectors))

    return block.dtype(block), emit

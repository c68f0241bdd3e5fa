"""LLVM instructions on blocks of vectors, from which `vectors.py` makes intrinsics for kernels.

A block is a single value for the compiler: rows times columns of vectors, each as wide as a register.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

WIDE = bool(llvm.get_host_cpu_features().get("avx512f"))
"""Whether there are 32 registers of 64 bytes, and not 16 of 32 bytes or 32 of 16."""

REGISTERS = 32 if WIDE else 16
VECTOR_BYTES = 64 if WIDE else 32


class Block(types.Type):
    """The type of a block of vectors."""

    def __init__(self, dtype: types.Type, rows: int, columns: int) -> None:
        self.dtype, self.rows, self.columns = dtype, rows, columns
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(f"Block({dtype}, {rows}, {columns})")


@register_model(Block)
class BlockModel(models.PrimitiveModel):
    def __init__(self, manager: Any, block: Block) -> None:
        super().__init__(manager, block, ir.ArrayType(vector_type(block), block.rows * block.columns))


def vector_type(block: Block) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if block.dtype == types.float32 else ir.DoubleType(), block.lanes)


class Emitter:
    """Emits LLVM instructions for blocks of one type."""

    def __init__(self, context: Any, builder: Any, kind: Block) -> None:
        self.context, self.builder, self.kind = context, builder, kind
        self.vector = vector_type(kind)
        self.align = kind.dtype.bitwidth // 8

    def address(self, array_type: Any, array: Any, *steps: Any) -> Any:
        """The address of a value in a flat array, at the sum of the steps: numbers or (number, stride) pairs."""
        place = self.context.make_array(array_type)(self.context, self.builder, array).data
        return self.further(place, *steps)

    def further(self, place: Any, *steps: Any) -> Any:
        for step in steps:
            count, stride = step if isinstance(step, tuple) else (step, None)
            count = number(count) if isinstance(count, int) else count
            place = self.builder.gep(place, [count if stride is None else self.builder.mul(count, stride)])
        return place

    def load(self, place: Any) -> Any:
        return self.builder.load(self.builder.bitcast(place, self.vector.as_pointer()), align=self.align)

    def load_some(self, place: Any, count: Any) -> Any:
        """The first `count` values, followed by zeros."""
        arguments = [self.builder.bitcast(place, self.vector.as_pointer()), self._alignment(), self._first(count)]
        return self._masked("load", self.vector, [*arguments, ir.Constant(self.vector, None)])

    def store(self, value: Any, place: Any) -> None:
        self.builder.store(value, self.builder.bitcast(place, self.vector.as_pointer())).align = self.align

    def store_some(self, value: Any, place: Any, count: Any) -> None:
        """Write the first `count` values."""
        arguments = [
            value,
            self.builder.bitcast(place, self.vector.as_pointer()),
            self._alignment(),
            self._first(count),
        ]
        self._masked("store", ir.VoidType(), arguments)

    def fetch(self, place: Any, *, to_write: bool) -> None:
        """Bring the cache line of an address into all caches. An address outside of the memory is harmless."""
        byte, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        prefetch = cgutils.get_or_insert_function(self.builder.module, signature, "llvm.prefetch.p0")
        into_all_levels, of_data = ir.Constant(integer, 3), ir.Constant(integer, 1)
        place = self.builder.bitcast(place, byte)
        self.builder.call(prefetch, [place, ir.Constant(integer, int(to_write)), into_all_levels, of_data])

    def _alignment(self) -> ir.Constant:
        return ir.Constant(ir.IntType(32), self.align)

    def _first(self, count: Any) -> Any:
        """The mask of the first `count` lanes."""
        order = ir.Constant(ir.VectorType(ir.IntType(64), self.kind.lanes), list(range(self.kind.lanes)))
        return self.builder.icmp_signed("<", order, self.spread(count))

    def _masked(self, what: str, result: Any, arguments: list[Any]) -> Any:
        name = f"llvm.masked.{what}.v{self.kind.lanes}f{self.kind.dtype.bitwidth}.p0"
        signature = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, name), arguments)

    def spread(self, value: Any) -> Any:
        """A vector with this number in every lane."""
        kind = ir.VectorType(value.type, self.kind.lanes)
        nothing = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), self.kind.lanes), [0] * self.kind.lanes)
        return self.builder.shuffle_vector(first, nothing, everywhere)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once."""
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fma.v{self.kind.lanes}f{self.kind.dtype.bitwidth}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, name), [a, b, c])

    def add_product(self, block: Any, row: int, column: int, a: Any, b: Any) -> Any:
        """block[row, column] += a * b."""
        index = row * self.kind.columns + column
        total = self.multiply_add(a, b, self.builder.extract_value(block, index))
        return self.builder.insert_value(block, total, index)

    def block(self, vectors: list[Any]) -> Any:
        """A block of these vectors, row by row."""
        block = ir.Constant(self.context.get_value_type(self.kind), ir.Undefined)
        for index, vector in enumerate(vectors):
            block = self.builder.insert_value(block, vector, index)
        return block

    def vectors(self, block: Any) -> list[tuple[int, int, Any]]:
        """Each vector with its row and column."""
        columns = self.kind.columns
        return [
            (i // columns, i % columns, self.builder.extract_value(block, i)) for i in range(self.kind.rows * columns)
        ]

    def total(self, vector: Any) -> Any:
        """The sum over the lanes, by adding halves."""
        width, nothing = self.kind.lanes, ir.Undefined
        while width > 1:
            width //= 2
            halves = [
                self.builder.shuffle_vector(
                    vector,
                    ir.Constant(vector.type, nothing),
                    ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width))),
                )
                for start in (0, width)
            ]
            vector = self.builder.fadd(*halves)
        return self.builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def number(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)

"""What lets a step that can't be interrupted change nothing if one of its values is at fault."""

import triton
import triton.language as tl


@triton.jit
def find_not_finite(x, fault, L, B: tl.constexpr):
    """fault = 1 if a value is infinite or NaN. All programs that write it write the same."""
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    value = tl.load(x + i, mask=i < L, other=0.0)
    found = tl.max(tl.where(value - value == 0, 0, 1), 0)
    tl.store(fault, 1, mask=found > 0)


@triton.jit
def find_strays(numbers, fault, L, count, B: tl.constexpr):
    """fault = 1 if a value isn't at least 0 and less than `count`."""
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    number = tl.load(numbers + i, mask=i < L, other=0)
    found = tl.max(tl.where((number >= 0) & (number < count), 0, 1), 0)
    tl.store(fault, 1, mask=found > 0)


@triton.jit
def copy_words(table, fault, BACK: tl.constexpr, B: tl.constexpr):
    """Copy words of 32 bits for each row (home, copy, words) of a table: to the copy, or BACK if there is a fault."""
    row = table + tl.program_id(1) * 3
    home = tl.load(row).to(tl.pointer_type(tl.int32))
    copy = tl.load(row + 1).to(tl.pointer_type(tl.int32))
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = i < tl.load(row + 2)
    if BACK:
        live = live & (tl.load(fault) != 0)
        tl.store(home + i, tl.load(copy + i, mask=live, other=0), mask=live)
    else:
        tl.store(copy + i, tl.load(home + i, mask=live, other=0), mask=live)

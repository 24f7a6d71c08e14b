"""Machine code of linear layers with packed weights: products by tiles, and rows of x rounded to int8.

Arguments of the kernels are listed where they are read; what they mean is in `linear.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from sgl_like.kernels import row_tiles, tiles
from sgl_like.kernels.bits import as_bits, as_float, narrow
from sgl_like.kernels.jit import compiled
from sgl_like.kernels.row_tiles import number_at
from sgl_like.kernels.threads import TaskKernel, pointer, take
from sgl_like.kernels.tile_rows import BYTES, HALVES, tile_rows

BLOCK, GROUP = tiles.BLOCK, tiles.GROUP
ROWS_AT_ONCE = 48
"""At most so many rows' sums are kept at a time."""
MOST_ROWS = 6
"""Rows in a tile."""
PART = 64
"""Steps in a part of a block's weights, see `_spread`."""
FAR = 2
"""Which block after this one is asked for: with two threads, this one's next."""
NEAR = 2**19
"""Bytes of a block beside which another one fits into a core's second-level cache."""


@compiled()
def _round_one(x: int, half: int, row: int, group: int, rounded: Any, scales: Any, totals: Any) -> None:
    """Round a row of x, at an address: int8 numbers, their scale, and the sums of groups of them."""
    columns = rounded.shape[1]
    vectors = columns // tiles.LANES
    whole = vectors * tiles.LANES
    start = x + row * columns * (2 if half else 4)
    bits = np.uint32(0)  # of the largest number: positive numbers are ordered as their bits are
    if vectors:
        if half:
            bits = row_tiles.largest_bits_half(start, vectors)
        if not half:
            bits = row_tiles.largest_bits_wide(start, vectors)
    for i in range(whole, columns):
        bits = max(bits, as_bits(number_at(start, half, i)) & np.uint32(0x7FFFFFFF))
    top = as_float(bits)
    scales[row] = top / np.float32(127.0)
    inverse = np.float32(127.0) / top if top > 0 else np.float32(0.0)
    values = rounded[row]
    if vectors:
        if half:
            row_tiles.rounded_half(start, inverse, values.ctypes.data, vectors)
        else:
            row_tiles.rounded_wide(start, inverse, values.ctypes.data, vectors)
    for i in range(whole, columns):
        values[i] = np.int8(np.int32(np.rint(number_at(start, half, i) * inverse)))
    for g in range(columns // group):
        total = 0
        for value in values[g * group : (g + 1) * group]:
            total += value
        totals[row, g] = total


def _round_rows(numbers):  # type: ignore[no-untyped-def]  # Numba reads a bare signature
    args = carray(numbers, 16)
    rows, columns, group = args[2], args[3], args[4]
    totals = carray(pointer(args[8]), (rows, columns // group), np.int32)
    rounded = carray(pointer(args[6]), (rows, columns), np.int8)
    scales = carray(pointer(args[7]), rows, np.float32)
    while True:
        row = take(numbers)
        if row >= args[1]:
            break
        _round_one(args[5], args[9], row, group, rounded, scales, totals)


@compiled()
def _write_part(
    out: int, half: int, at: int, sums: Any, scale: Any, shift: Any, factors: Any, bias: Any
) -> None:
    """What `tiles.finish_*` do, for a block that has fewer columns than `BLOCK`."""
    for i in range(len(bias)):
        value = np.float32(sums[i] - shift) * (scale * factors[i]) + bias[i]
        if half:
            carray(pointer(out + 2 * (at + i)), 1, np.uint16)[0] = narrow(value)
        else:
            carray(pointer(out + 4 * (at + i)), 1, np.float32)[0] = value


@compiled()
def _spread(rows: int, steps: int) -> tuple[int, int, int]:
    """How many rows are computed before their sums are written, in how many parts a block's weights are taken, and how
    far behind it the block is that is asked for next, if any.

    Reading them is nearly all of the work for few rows, which is done best in one go, and little of it for many: then
    a block is asked for if it fits into the cache beside this one. Between, a part is asked for while all rows take the
    one before, so that memory and products both are busy.
    """
    size = 4 * BLOCK * steps
    if rows < 10:
        return MOST_ROWS, 1, 0
    if rows < 128:
        return ROWS_AT_ONCE, max(1, steps // PART), FAR * size
    return MOST_ROWS, 1, FAR * size if size <= NEAR else 0


@compiled()
def _sums(
    kind: int, x: int, stride: int, rows: int, w: int, steps: int, out: int, parts: int, jump: int
) -> None:
    """Products of some rows and a block of weights as ``out: [rows, 64]``, with the weights in so many parts.

    While rows take a part that is in the cache already, the next part is asked for; after the last one that is the
    first of another block.
    """
    size = (steps + parts - 1) // parts
    for step in range(0, steps, size):
        block = w + 4 * BLOCK * step
        count = min(size, steps - step)
        following = 4 * BLOCK * size if step + size < steps else jump - 4 * BLOCK * step
        m = 0
        while m < rows:
            ahead = following if m and jump else 0
            at, to = x + m * stride + 4 * step, out + 4 * BLOCK * m
            m += tile_rows(kind, at, stride, block, count, to, ahead, rows - m, step)


@compiled()
def _add(added: int, result: int, half: int, out: int, place: int, count: int) -> None:
    """So many numbers of a result, plus those of `added` from a place on, to the output from there on."""
    size = 2 if half else 4
    x, y = added + size * place, out + size * place
    vectors = count // tiles.LANES
    if vectors:
        if half:
            row_tiles.added_half(x, result, y, vectors)
        else:
            row_tiles.added_wide(x, result, y, vectors)
    for i in range(vectors * tiles.LANES, count):
        value = number_at(x, half, i) + number_at(result, half, i)
        if half:
            carray(pointer(y + 2 * i), 1, np.uint16)[0] = narrow(value)
        else:
            carray(pointer(y + 4 * i), 1, np.float32)[0] = value


@compiled()
def _finish_ints(
    sums: int, shift: Any, scale: Any, factors: int, bias: int, count: int, half: int, out: int, place: int
) -> None:
    """Int32 sums of a row and a block, which has so many columns, to the output, from a place on.

    All are addresses: Numba counts references to arrays, also in the innermost loop.
    """
    if count < BLOCK:
        numbers = carray(pointer(sums), count, np.int32)
        some_factors = carray(pointer(factors), count, np.float32)
        some_bias = carray(pointer(bias), count, np.float32)
        _write_part(out, half, place, numbers, scale, shift, some_factors, some_bias)
    elif half:
        tiles.finish_ints_half(sums, shift, scale, factors, bias, out + 2 * place)
    else:
        tiles.finish_ints_wide(sums, shift, scale, factors, bias, out + 4 * place)


@compiled()
def _finish_floats(sums: int, scale: Any, bias: int, count: int, half: int, out: int, place: int) -> None:
    """The same with float32 sums."""
    if count < BLOCK:
        numbers = carray(pointer(sums), count, np.float32)
        some_bias = carray(pointer(bias), count, np.float32)
        ones = np.ones(count, dtype=np.float32)
        _write_part(out, half, place, numbers, scale, np.float32(0.0), ones, some_bias)
    elif half:
        tiles.finish_floats_half(sums, scale, bias, out + 2 * place)
    else:
        tiles.finish_floats_wide(sums, scale, bias, out + 4 * place)


def _bytes_linear(numbers):  # type: ignore[no-untyped-def]
    args = carray(numbers, 16)
    rows, width, columns = args[2], args[3], args[4]
    x, w, out, half = args[5], args[8], args[11], args[12]
    scales = carray(pointer(args[6]), rows, np.float32)
    totals = carray(pointer(args[7]), (rows, 1), np.int32)
    own = np.empty((rows * args[13], columns), dtype=np.int8)
    if args[13]:  # x is not rounded yet: every thread does it
        scales, totals = np.empty(rows, dtype=np.float32), np.empty((rows, 1), dtype=np.int32)
        for row in range(rows):
            _round_one(x, half, row, columns, own, scales, totals)
    sums, spare = np.empty((ROWS_AT_ONCE, BLOCK), dtype=np.int32), np.empty(BLOCK, dtype=np.float32)
    steps = columns // 4
    at_once, parts, jump = _spread(rows, steps)
    while True:
        block = take(numbers)
        if block >= args[1]:
            break
        first = block * BLOCK
        end = min(first + BLOCK, width)
        kept, added_to = sums.ctypes.data, spare.ctypes.data
        here = w + first * columns
        base = own.ctypes.data if args[13] else x  # here, or Numba would let go of `own` too early
        for m in range(0, rows, at_once):
            done = min(at_once, rows - m)
            if at_once == MOST_ROWS:
                tile_rows(BYTES, base + m * columns, columns, here, steps, kept, jump if m else 0, done, 0)
            else:
                _sums(BYTES, base + m * columns, columns, done, here, steps, kept, parts, jump)
            for i in range(done):
                place = (m + i) * width + first
                shift = np.int32(128 * totals[m + i, 0])
                to, at = (added_to, 0) if args[14] else (out, place)
                _finish_ints(
                    kept + 4 * BLOCK * i, shift, scales[m + i], args[9] + 4 * first, args[10] + 4 * first,
                    end - first, half, to, at,
                )  # fmt: skip
                if args[14]:
                    _add(args[14], added_to, half, out, place, end - first)


def _nibbles_linear(numbers):  # type: ignore[no-untyped-def]
    args = carray(numbers, 16)
    rows, width, columns = args[2], args[3], args[4]
    x, w, out, half = args[5], args[8], args[11], args[12]
    groups = columns // GROUP
    scales = carray(pointer(args[6]), rows, np.float32)
    totals = carray(pointer(args[7]), (rows, groups), np.int32)
    own = np.empty((rows * args[13], columns), dtype=np.int8)
    if args[13]:
        scales, totals = np.empty(rows, dtype=np.float32), np.empty((rows, groups), dtype=np.int32)
        for row in range(rows):
            _round_one(x, half, row, GROUP, own, scales, totals)
    sums, spare = np.empty((4, BLOCK), dtype=np.float32), np.empty(BLOCK, dtype=np.float32)
    stride, size = 4 * groups, BLOCK * columns // 2
    while True:
        block = take(numbers)
        if block >= args[1]:
            break
        first = block * BLOCK
        end = min(first + BLOCK, width)
        kept, added_to = sums.ctypes.data, spare.ctypes.data
        here, factors = w + first * columns // 2, args[9] + 2 * first * groups
        base = own.ctypes.data if args[13] else x  # here, or Numba would let go of `own` too early
        m = 0
        while m < rows:
            ahead = FAR * size if m else 0  # once the block is in the cache, the next ones are asked for
            at, total, left = base + m * columns, totals.ctypes.data + m * stride, rows - m
            if left >= 3:
                for part in range(2):  # fewer columns at a time: the registers do not hold more sums
                    block_at, scale_at = here + 128 * part, factors + 64 * part
                    to = kept + 128 * part
                    if left == 3:
                        tiles.nibbles_3(at, columns, total, stride, block_at, scale_at, groups, to, ahead)
                    else:
                        tiles.nibbles_4(at, columns, total, stride, block_at, scale_at, groups, to, ahead)
            elif left == 2:
                tiles.nibbles_2(at, columns, total, stride, here, factors, groups, kept, ahead)
            else:
                tiles.nibbles_1(at, columns, total, stride, here, factors, groups, kept, ahead)
            done = min(left, 4)
            for i in range(done):
                place = (m + i) * width + first
                to, at = (added_to, 0) if args[14] else (out, place)
                _finish_floats(
                    kept + 4 * BLOCK * i, scales[m + i], args[10] + 4 * first, end - first, half, to, at
                )
                if args[14]:
                    _add(args[14], added_to, half, out, place, end - first)
            m += done


def _bfloats_linear(numbers):  # type: ignore[no-untyped-def]
    args = carray(numbers, 16)
    rows, width, columns = args[2], args[3], args[4]
    x, w, out, half = args[5], args[8], args[11], args[12]
    sums, spare = np.empty((ROWS_AT_ONCE, BLOCK), dtype=np.float32), np.empty(BLOCK, dtype=np.float32)
    steps, stride = columns // 2, 2 * columns
    at_once, parts, jump = _spread(rows, steps)
    while True:
        block = take(numbers)
        if block >= args[1]:
            break
        first = block * BLOCK
        end = min(first + BLOCK, width)
        kept, added_to = sums.ctypes.data, spare.ctypes.data
        here = w + 2 * first * columns
        for m in range(0, rows, at_once):
            done = min(at_once, rows - m)
            if at_once == MOST_ROWS:
                tile_rows(HALVES, x + m * stride, stride, here, steps, kept, jump if m else 0, done, 0)
            else:
                _sums(HALVES, x + m * stride, stride, done, here, steps, kept, parts, jump)
            for i in range(done):
                place = (m + i) * width + first
                to, at = (added_to, 0) if args[14] else (out, place)
                _finish_floats(
                    kept + 4 * BLOCK * i, np.float32(1.0), args[10] + 4 * first, end - first, half, to, at
                )
                if args[14]:
                    _add(args[14], added_to, half, out, place, end - first)


round_rows = TaskKernel(_round_rows)
bytes_linear = TaskKernel(_bytes_linear)
nibbles_linear = TaskKernel(_nibbles_linear)
bfloats_linear = TaskKernel(_bfloats_linear)

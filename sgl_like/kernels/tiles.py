"""Inner loops of packed matrix products: small tiles of the output held in vector registers.

Each tile function is LLVM code made for one number of rows of x. Weights lie in blocks of 64 output columns, four
bytes of each column at a time, so that one vector instruction multiplies four bytes (two bfloat16) of 16 columns by
the same four bytes of a row of x and adds the products to 16 sums. On processors that have no such instruction the
same sums are written as plain vector arithmetic.

    w block   [step][4][16 columns][4 bytes]        x row   [step][4 bytes]        out   [row][64 columns]

Sums run over the steps in order, whatever the number of rows: a row's result does not depend on its batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import extending, types

_intrinsic: Callable[[Callable[..., Any]], Any] = extending.intrinsic

LANES = 16
BLOCK = 64
"""Output columns in a block."""
GROUP = 32
"""Weights of a column that share a scale in 4-bit blocks."""

_I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_BYTES, _INTS, _FLOATS = ir.VectorType(_I8, 64), ir.VectorType(_I32, LANES), ir.VectorType(_F32, LANES)
Value = Any
Multiply = Callable[[Value, Value, Value, Value], Value]


class _BFloat(ir.types.Type):  # type: ignore[misc]
    """LLVM's 16-bit brain float, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_BFLOATS = ir.VectorType(_BFloat(), 32)


@cache
def has(feature: str) -> bool:
    """Whether Numba compiles for a processor with this feature."""
    if os.environ.get("NUMBA_CPU_NAME"):  # somebody wants other code than this machine's
        return False
    return bool(llvmlite.binding.get_host_cpu_features().get(feature))


def _multiply_bytes(builder: Value, sums: Value, unsigned: Value, signed: Value) -> Value:
    """Sums of products of four unsigned and four signed bytes added to each of 16 int32."""
    if has("avx512vnni"):
        kind = ir.FunctionType(_INTS, [_INTS, _BYTES, _BYTES])
        name = "llvm.x86.avx512.vpdpbusd.512"
        return builder.call(builder.module.declare_intrinsic(name, fnty=kind), [sums, unsigned, signed])
    wide = ir.VectorType(_I32, 64)
    products = builder.mul(builder.zext(unsigned, wide), builder.sext(signed, wide))
    for part in range(4):
        sums = builder.add(sums, _every(builder, products, 4, part))
    return sums


def _multiply_bfloats(builder: Value, sums: Value, weights: Value, x: Value) -> Value:
    """Sums of products of two bfloat16 each added to each of 16 float32."""
    if has("avx512bf16"):
        kind = ir.FunctionType(_FLOATS, [_FLOATS, _BFLOATS, _BFLOATS])
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        arguments = [sums, builder.bitcast(weights, _BFLOATS), builder.bitcast(x, _BFLOATS)]
        return builder.call(builder.module.declare_intrinsic(name, fnty=kind), arguments)
    a, b = builder.bitcast(weights, _INTS), builder.bitcast(x, _INTS)
    sixteen, upper = ir.Constant(_INTS, [16] * LANES), ir.Constant(_INTS, [-65536] * LANES)
    halves = (
        (builder.shl(a, sixteen), builder.shl(b, sixteen)),
        (builder.and_(a, upper), builder.and_(b, upper)),
    )
    for one, other in halves:
        product = builder.fmul(builder.bitcast(one, _FLOATS), builder.bitcast(other, _FLOATS))
        sums = builder.fadd(sums, product)
    return sums


def _multiply_floats(builder: Value, sums: Value, weights: Value, x: Value) -> Value:
    """Products of float32 added to 16 float32."""
    product = builder.fmul(builder.bitcast(weights, _FLOATS), builder.bitcast(x, _FLOATS), ("contract",))
    return builder.fadd(sums, product, ("contract",))


def narrowed(builder: Value, values: Value) -> Value:
    """16 float32 as bfloat16, to nearest, ties to even."""
    if has("avx512bf16"):
        return builder.fptrunc(values, ir.VectorType(_BFloat(), LANES))
    bits = builder.bitcast(values, _INTS)

    def all_of(number: int) -> Value:
        return ir.Constant(_INTS, [number] * LANES)

    odd = builder.and_(builder.lshr(bits, all_of(16)), all_of(1))
    rounded = builder.lshr(builder.add(builder.add(bits, all_of(0x7FFF)), odd), all_of(16))
    kept = builder.select(builder.fcmp_ordered("==", values, values), rounded, all_of(0x7FC0))
    return builder.trunc(kept, ir.VectorType(_I16, LANES))


def _every(builder: Value, vector: Value, step: int, first: int) -> Value:
    places = ir.Constant(_INTS, list(range(first, step * LANES, step)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), places)


def load(builder: Value, kind: Value, where: Value, offset: int = 0) -> Value:
    """A value at an address, which may be unaligned."""
    if offset:
        where = builder.add(where, ir.Constant(_I64, offset))
    value = builder.load(builder.inttoptr(where, kind.as_pointer()))
    value.align = 1
    return value


def bring(builder: Value, where: Value) -> None:
    """Have the memory at an address brought near."""
    kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    function = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
    hints = [ir.Constant(_I32, n) for n in (0, 2, 1)]  # read, second-level cache, data
    builder.call(function, [builder.inttoptr(where, _I8.as_pointer()), *hints])


def repeated(builder: Value, number: Value) -> Value:
    """A number, 16 times."""
    kind = ir.VectorType(number.type, LANES)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(_INTS, [0] * LANES))


def _x_bytes(builder: Value, x: Value, stride: Value, row: int, offset: int = 0) -> Value:
    """Four bytes of a row of x, 16 times."""
    where = builder.add(x, builder.mul(stride, ir.Constant(_I64, row)))
    return builder.bitcast(repeated(builder, load(builder, _I32, where, offset)), _BYTES)


def loop(
    builder: Value, count: Value, sums: list[Value], body: Callable[[Value, list[Value]], list[Value]]
) -> list[Value]:
    """LLVM code that runs `body` (number of the round, sums so far -> new sums) `count` times, at least once."""
    entry = builder.block
    again, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.branch(again)
    builder.position_at_end(again)
    at = builder.phi(_I64)
    at.add_incoming(ir.Constant(_I64, 0), entry)
    current = [builder.phi(value.type) for value in sums]
    for phi, value in zip(current, sums, strict=True):
        phi.add_incoming(value, entry)
    new = body(at, current)
    following = builder.add(at, ir.Constant(_I64, 1))
    at.add_incoming(following, builder.block)
    for phi, value in zip(current, new, strict=True):
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), again, done)
    builder.position_at_end(done)
    return new


def _store(builder: Value, sums: list[Value], out: Value, columns: int) -> None:
    """Sums of `columns` columns for each row, into rows of `BLOCK` numbers."""
    per_row = columns // LANES
    for i, value in enumerate(sums):
        row, part = divmod(i, per_row)
        where = builder.add(out, ir.Constant(_I64, 4 * (row * BLOCK + part * LANES)))
        builder.store(value, builder.inttoptr(where, value.type.as_pointer())).align = 4


def _begin(builder: Value, kind: Value, count: int, out: Value, more: Value) -> list[Value]:
    """Zeros, or with `more` the sums at `out`: by a jump, since nearly all tiles begin with zeros."""
    entry = builder.block
    again, done = builder.append_basic_block("more"), builder.append_basic_block("begun")
    builder.cbranch(builder.icmp_signed("!=", more, ir.Constant(_I64, 0)), again, done)
    builder.position_at_end(again)
    found = [load(builder, kind, out, 4 * LANES * i) for i in range(count)]
    builder.branch(done)
    builder.position_at_end(done)
    sums = [builder.phi(kind) for _ in found]
    for phi, value in zip(sums, found, strict=True):
        phi.add_incoming(ir.Constant(kind, [0] * LANES), entry)
        phi.add_incoming(value, again)
    return sums


def tile(rows: int, multiply: Multiply, kind: Value) -> Any:
    """``f(x, stride of x in bytes, w block, steps, out, ahead, more)`` for `rows` rows of x: ``[rows, 64]`` sums.

    The memory `ahead` bytes behind the weights is asked for meanwhile. With `more`, what is at `out` is added to.
    """
    parts = BLOCK // LANES

    @_intrinsic
    def function(
        typing_context: Any, x: Any, stride: Any, w: Any, steps: Any, out: Any, ahead: Any, more: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, stride, w, steps, out, ahead, more = args

            def step(at: Value, sums: list[Value]) -> list[Value]:
                block = builder.add(w, builder.mul(at, ir.Constant(_I64, 64 * parts)))
                weights = [load(builder, _BYTES, block, 64 * n) for n in range(parts)]
                later = builder.add(block, ahead)
                for n in range(parts):
                    bring(builder, builder.add(later, ir.Constant(_I64, 64 * n)))
                here = builder.add(x, builder.mul(at, ir.Constant(_I64, 4)))
                new = []
                for row in range(rows):
                    values = _x_bytes(builder, here, stride, row)
                    new += [
                        multiply(builder, sums[row * parts + n], weights[n], values) for n in range(parts)
                    ]
                return new

            sums = _begin(builder, kind, rows * parts, out, more)
            _store(builder, loop(builder, steps, sums, step), out, BLOCK)
            return context.get_dummy_value()

        pointer, size = types.uintp, types.intp
        return types.void(pointer, size, pointer, size, pointer, size, size), generate

    return function


def grouped_tile(rows: int, parts: int) -> Any:
    """``f(x, stride of x, group sums of x, their stride, w, scales, groups, out, ahead)`` for 4-bit weights.

    A tile of `rows` rows by ``16 * parts`` columns. In a group of 32 weights of a column, byte ``j * 4 + t`` has
    weights ``8 j + t`` and, in its upper half, ``8 j + 4 + t``, each 8 too large. `scales` are
    bfloat16, ``[group][64]``.
    """

    @_intrinsic
    def function(
        typing_context: Any, x: Any, stride: Any, totals: Any, totals_stride: Any, w: Any, scales: Any,
        groups: Any, out: Any, ahead: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, stride, totals, totals_stride, w, scales, groups, out, ahead = args
            low, four = ir.Constant(_BYTES, [15] * 64), ir.Constant(_BYTES, [4] * 64)
            eight, sixteen = ir.Constant(_I32, 8), ir.Constant(_INTS, [16] * LANES)
            half_words = ir.VectorType(_I16, LANES)

            def group(at: Value, sums: list[Value]) -> list[Value]:
                block = builder.add(w, builder.mul(at, ir.Constant(_I64, BLOCK * GROUP // 2)))
                here = builder.add(x, builder.mul(at, ir.Constant(_I64, GROUP)))
                later = builder.add(block, ahead)
                whole = [ir.Constant(_INTS, [0] * LANES)] * (rows * parts)
                for j in range(GROUP // 8):
                    packed = [load(builder, _BYTES, block, (j * 4 + n) * 64) for n in range(parts)]
                    for n in range(parts):
                        bring(builder, builder.add(later, ir.Constant(_I64, (j * 4 + n) * 64)))
                    for upper in range(2):
                        weights = [builder.lshr(p, four) if upper else builder.and_(p, low) for p in packed]
                        for row in range(rows):
                            values = _x_bytes(builder, here, stride, row, 8 * j + 4 * upper)
                            for n in range(parts):
                                i = row * parts + n
                                whole[i] = _multiply_bytes(builder, whole[i], weights[n], values)
                scale_at = builder.add(scales, builder.mul(at, ir.Constant(_I64, 2 * BLOCK)))
                new = list(sums)
                factors = []
                for n in range(parts):
                    bits = builder.zext(load(builder, half_words, scale_at, 2 * LANES * n), _INTS)
                    factors.append(builder.bitcast(builder.shl(bits, sixteen), _FLOATS))
                total_at = builder.add(totals, builder.mul(at, ir.Constant(_I64, 4)))
                for row in range(rows):
                    where = builder.add(total_at, builder.mul(totals_stride, ir.Constant(_I64, row)))
                    extra = repeated(builder, builder.mul(load(builder, _I32, where), eight))
                    for n in range(parts):
                        i = row * parts + n
                        exact = builder.sitofp(builder.sub(whole[i], extra), _FLOATS)
                        new[i] = builder.fadd(
                            sums[i], builder.fmul(exact, factors[n], ("contract",)), ("contract",)
                        )
                return new

            zero = ir.Constant(_FLOATS, [0.0] * LANES)
            _store(builder, loop(builder, groups, [zero] * (rows * parts), group), out, LANES * parts)
            return context.get_dummy_value()

        pointer, size = types.uintp, types.intp
        return types.void(pointer, size, pointer, size, pointer, pointer, size, pointer, size), generate

    return function


def finish(whole: bool, half: bool) -> Any:
    """Sums of a row and a block to the output: scaled, with bias, as float32 or bfloat16.

    ``f(sums, shift, scale, factors, bias, out)`` for int32 sums: ``(sums - shift) * (scale * factors) + bias``;
    ``f(sums, scale, bias, out)`` for float32 sums: ``sums * scale + bias``.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, bias, out = args[0], args[-2], args[-1]
        scale = repeated(builder, args[2 if whole else 1])
        for part in range(BLOCK // LANES):
            at = 4 * LANES * part
            if whole:
                shift = repeated(builder, args[1])
                value = builder.sitofp(builder.sub(load(builder, _INTS, sums, at), shift), _FLOATS)
                factor = builder.fmul(scale, load(builder, _FLOATS, args[3], at))
            else:
                value, factor = load(builder, _FLOATS, sums, at), scale
            value = builder.fmul(value, factor, ("contract",))
            value = builder.fadd(value, load(builder, _FLOATS, bias, at), ("contract",))
            if half:
                value = narrowed(builder, value)
            where = builder.add(out, ir.Constant(_I64, at // 2 if half else at))
            builder.store(value, builder.inttoptr(where, value.type.as_pointer())).align = 2
        return context.get_dummy_value()

    pointer = types.uintp
    if whole:

        @_intrinsic
        def ints(
            typing_context: Any, sums: Any, shift: Any, scale: Any, factors: Any, bias: Any, out: Any
        ) -> Any:
            return types.void(pointer, types.int32, types.float32, pointer, pointer, pointer), generate

        return ints

    @_intrinsic
    def floats(typing_context: Any, sums: Any, scale: Any, bias: Any, out: Any) -> Any:
        return types.void(pointer, types.float32, pointer, pointer), generate

    return floats


@_intrinsic
def transpose(typing_context: Any, rows: Any, offset: Any, out: Any, stride: Any) -> Any:
    """``f(rows, offset, out, stride)``: the 16 words of 32 bits at `offset` in each of 16 rows, whose addresses are at
    `rows`, as 16 columns: word w of all rows goes to ``out + w * stride``.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, offset, out, stride = args
        lines = []
        for i in range(LANES):
            row = load(builder, _I64, rows, 8 * i)
            lines.append(load(builder, _INTS, builder.add(row, offset)))
        for half in (8, 4, 2, 1):  # swap the off-diagonal blocks of every 2 * half square
            for i in (i for i in range(LANES) if not i & half):
                pair = lines[i], lines[i + half]
                low = [j if not j & half else LANES + j - half for j in range(LANES)]
                high = [j + half if not j & half else LANES + j for j in range(LANES)]
                lines[i] = builder.shuffle_vector(*pair, ir.Constant(_INTS, low))
                lines[i + half] = builder.shuffle_vector(*pair, ir.Constant(_INTS, high))
        for w, line in enumerate(lines):
            where = builder.add(out, builder.mul(stride, ir.Constant(_I64, w)))
            builder.store(line, builder.inttoptr(where, _INTS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, types.uintp, types.intp), generate


finish_ints_half, finish_ints_wide = finish(True, True), finish(True, False)
finish_floats_half, finish_floats_wide = finish(False, True), finish(False, False)
bytes_1, bytes_2, bytes_3, bytes_4, bytes_5, bytes_6 = (
    tile(rows, _multiply_bytes, _INTS) for rows in range(1, 7)
)
bfloats_1, bfloats_2, bfloats_3, bfloats_4, bfloats_5, bfloats_6 = (
    tile(rows, _multiply_bfloats, _FLOATS) for rows in range(1, 7)
)
floats_1, floats_2, floats_3, floats_4, floats_5, floats_6 = (
    tile(rows, _multiply_floats, _FLOATS) for rows in range(1, 7)
)
nibbles_1, nibbles_2, nibbles_3, nibbles_4 = (
    grouped_tile(rows, parts) for rows, parts in ((1, 4), (2, 4), (3, 2), (4, 2))
)

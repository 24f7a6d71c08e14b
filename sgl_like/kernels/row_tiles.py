"""Loops over a row of float32 or bfloat16 numbers, `LANES` at a time in vector registers.

Rows are given by address, lengths in vectors (of `LANES` numbers, at least one). Each comes in two kinds, ``_wide`` for
float32 and ``_half`` for bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, extending, types  # type: ignore[attr-defined]

from sgl_like.kernels import tiles
from sgl_like.kernels.bits import widen
from sgl_like.kernels.jit import compiled
from sgl_like.kernels.threads import pointer
from sgl_like.kernels.tiles import LANES, Value

_intrinsic: Callable[[Callable[..., Any]], Any] = extending.intrinsic
_FLOAT, _WORD, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_WORD, LANES)
_SHORTS, _BYTES = ir.VectorType(ir.IntType(16), LANES), ir.VectorType(ir.IntType(8), LANES)


@compiled()
def number_at(row: int, half: int, at: int) -> Any:
    """One number of a row: what is left behind the last whole vector."""
    if half:
        return widen(carray(pointer(row + 2 * at), 1, np.uint16)[0])
    return carray(pointer(row + 4 * at), 1, np.float32)[0]


def read(builder: Value, where: Value, half: bool) -> Value:
    """16 numbers at an address as float32."""
    if not half:
        return tiles.load(builder, _FLOATS, where)
    bits = builder.zext(tiles.load(builder, _SHORTS, where), _INTS)
    return builder.bitcast(builder.shl(bits, ir.Constant(_INTS, [16] * LANES)), _FLOATS)


def write(builder: Value, value: Value, where: Value, half: bool) -> None:
    """16 float32 to an address, as they are or as bfloat16."""
    if half:
        value = tiles.narrowed(builder, value)
    builder.store(value, builder.inttoptr(where, value.type.as_pointer())).align = 1


def _at(builder: Value, row: Value, at: Value, size: int) -> Value:
    return builder.add(row, builder.mul(at, ir.Constant(_LONG, size * LANES)))


def _reduced(builder: Value, name: str, kind: Value, vector: Value, *first: Value) -> Value:
    suffix = "v16f32" if kind is _FLOAT else "v16i32"
    function = builder.module.declare_intrinsic(
        f"llvm.vector.reduce.{name}.{suffix}", fnty=ir.FunctionType(kind, [v.type for v in (*first, vector)])
    )
    return builder.call(function, [*first, vector], fastmath=("reassoc",) if first else ())


def _sum_of_squares(half: bool) -> Any:
    @_intrinsic
    def function(typing_context: Any, x: Any, vectors: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def add(at: Value, sums: list[Value]) -> list[Value]:
                value = read(builder, _at(builder, args[0], at, 2 if half else 4), half)
                return [builder.fadd(sums[0], builder.fmul(value, value, ("contract",)), ("contract",))]

            (total,) = tiles.loop(builder, args[1], [ir.Constant(_FLOATS, [0.0] * LANES)], add)
            return _reduced(builder, "fadd", _FLOAT, total, ir.Constant(_FLOAT, 0.0))

        return types.float32(types.uintp, types.intp), generate

    return function


def _largest_bits(half: bool) -> Any:
    @_intrinsic
    def function(typing_context: Any, x: Any, vectors: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def higher(at: Value, tops: list[Value]) -> list[Value]:
                value = read(builder, _at(builder, args[0], at, 2 if half else 4), half)
                bits = builder.and_(builder.bitcast(value, _INTS), ir.Constant(_INTS, [0x7FFFFFFF] * LANES))
                return [builder.select(builder.icmp_unsigned(">", bits, tops[0]), bits, tops[0])]

            (top,) = tiles.loop(builder, args[1], [ir.Constant(_INTS, [0] * LANES)], higher)
            return _reduced(builder, "umax", _WORD, top)

        return types.uint32(types.uintp, types.intp), generate

    return function


@_intrinsic
def largest(typing_context: Any, x: Any, rounds: Any) -> Any:
    """``f(x, rounds) -> float32``: the largest of ``rounds * 4 * LANES`` float32, none of them NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def higher(at: Value, tops: list[Value]) -> list[Value]:
            new = []
            for n, top in enumerate(tops):  # several at a time: each waits for the one before
                where = builder.add(args[0], builder.mul(at, ir.Constant(_LONG, 16 * LANES)))
                value = tiles.load(builder, _FLOATS, where, 4 * LANES * n)
                new.append(builder.select(builder.fcmp_ordered(">", value, top), value, top))
            return new

        tops = tiles.loop(builder, args[1], [ir.Constant(_FLOATS, [-math.inf] * LANES)] * 4, higher)
        while len(tops) > 1:
            a, b, *tops = tops
            tops.append(builder.select(builder.fcmp_ordered(">", a, b), a, b))
        return _reduced(builder, "fmax", _FLOAT, tops[0])

    return types.float32(types.uintp, types.intp), generate


def _scaled(half: bool, half_weight: bool) -> Any:
    @_intrinsic
    def function(typing_context: Any, x: Any, weight: Any, factor: Any, out: Any, vectors: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            factor = tiles.repeated(builder, args[2])

            def scale(at: Value, nothing: list[Value]) -> list[Value]:
                value = read(builder, _at(builder, args[0], at, 2 if half else 4), half)
                weight = read(builder, _at(builder, args[1], at, 2 if half_weight else 4), half_weight)
                value = builder.fmul(builder.fmul(value, factor), weight)
                write(builder, value, _at(builder, args[3], at, 2 if half else 4), half)
                return []

            tiles.loop(builder, args[4], [], scale)
            return context.get_dummy_value()

        pointer = types.uintp
        return types.void(pointer, pointer, types.float32, pointer, types.intp), generate

    return function


def _rounded(half: bool) -> Any:
    @_intrinsic
    def function(typing_context: Any, x: Any, factor: Any, out: Any, vectors: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            factor = tiles.repeated(builder, args[1])
            nearest = builder.module.declare_intrinsic(
                "llvm.rint.v16f32", fnty=ir.FunctionType(_FLOATS, [_FLOATS])
            )

            def convert(at: Value, nothing: list[Value]) -> list[Value]:
                value = read(builder, _at(builder, args[0], at, 2 if half else 4), half)
                whole = builder.fptosi(builder.call(nearest, [builder.fmul(value, factor)]), _INTS)
                where = builder.inttoptr(_at(builder, args[2], at, 1), _BYTES.as_pointer())
                builder.store(builder.trunc(whole, _BYTES), where).align = 1
                return []

            tiles.loop(builder, args[3], [], convert)
            return context.get_dummy_value()

        return types.void(types.uintp, types.float32, types.uintp, types.intp), generate

    return function


def _added(half: bool) -> Any:
    @_intrinsic
    def function(typing_context: Any, x: Any, y: Any, out: Any, vectors: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def add(at: Value, nothing: list[Value]) -> list[Value]:
                one, other, where = (_at(builder, row, at, 2 if half else 4) for row in args[:3])
                total = builder.fadd(read(builder, one, half), read(builder, other, half))
                write(builder, total, where, half)
                return []

            tiles.loop(builder, args[3], [], add)
            return context.get_dummy_value()

        return types.void(types.uintp, types.uintp, types.uintp, types.intp), generate

    return function


sum_of_squares_wide, sum_of_squares_half = _sum_of_squares(False), _sum_of_squares(True)
"""``f(x, vectors) -> float32``."""
largest_bits_wide, largest_bits_half = _largest_bits(False), _largest_bits(True)
"""``f(x, vectors) -> uint32``: the bits of the largest absolute value, as float32; NaN is larger than all."""
scaled_wide, scaled_half = _scaled(False, False), _scaled(True, False)
"""``f(x, weight, factor, out, vectors)``: ``x * factor * weight``, the weight in float32."""
scaled_half_by_half = _scaled(True, True)
"""The same with weights in bfloat16."""
rounded_wide, rounded_half = _rounded(False), _rounded(True)
"""``f(x, factor, out, vectors)``: ``x * factor`` to the nearest int8."""
added_wide, added_half = _added(False), _added(True)
"""``f(x, y, out, vectors)``: ``x + y``."""

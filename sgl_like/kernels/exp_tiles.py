"""What needs exponentials, in vector registers: the step of a running softmax, and the gate of SwiGLU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types

from sgl_like.kernels import row_tiles, tiles
from sgl_like.kernels.tiles import BLOCK, LANES, Value

_intrinsic: Callable[[Callable[..., Any]], Any] = extending.intrinsic
_FLOAT, _WORD = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_WORD, LANES)
_FREE = ("contract", "reassoc", "nsz")


def _all(value: float) -> Value:
    return ir.Constant(_FLOATS, [value] * LANES)


def exponential(builder: Value, x: Value) -> Value:
    """``exp`` of 16 float32 <= 0, to 3e-6 of its value: 2 to the whole part times a polynomial in the rest."""
    t = builder.fmul(x, _all(math.log2(math.e)), _FREE)
    least = builder.fcmp_ordered(">", t, _all(-126.0))
    t = builder.select(least, t, _all(-126.0))
    nearest = builder.module.declare_intrinsic("llvm.rint.v16f32", fnty=ir.FunctionType(_FLOATS, [_FLOATS]))
    whole = builder.call(nearest, [t])
    y = builder.fmul(builder.fsub(t, whole, _FREE), _all(math.log(2)), _FREE)
    p = _all(1 / 120)
    for factor in (1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        p = builder.fadd(builder.fmul(p, y, _FREE), _all(factor), _FREE)
    power = builder.add(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [127] * LANES))
    return builder.fmul(
        p, builder.bitcast(builder.shl(power, ir.Constant(_INTS, [23] * LANES)), _FLOATS), _FREE
    )


def _reduced(builder: Value, name: str, vector: Value, *first: Value) -> Value:
    kind = ir.FunctionType(_FLOAT, [value.type for value in (*first, vector)])
    function = builder.module.declare_intrinsic(f"llvm.vector.reduce.{name}.v16f32", fnty=kind)
    return builder.call(function, [*first, vector], fastmath=("reassoc",))


def _weigh(half: bool) -> Any:
    """``f(scores, low, high, scale, top, out) -> sum``; see `weigh_wide`."""

    @_intrinsic
    def function(
        typing_context: Any, scores: Any, low: Any, high: Any, scale: Any, top: Any, out: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            scores, low, high, scale, top_at, out = args
            first = tiles.repeated(builder, builder.trunc(low, _WORD))
            stop = tiles.repeated(builder, builder.trunc(high, _WORD))
            factor = tiles.repeated(builder, scale)
            rows, seen = [], []
            for part in range(BLOCK // LANES):
                places = ir.Constant(_INTS, list(range(part * LANES, (part + 1) * LANES)))
                inside = builder.and_(
                    builder.icmp_signed(">=", places, first), builder.icmp_signed("<", places, stop)
                )
                row = builder.fmul(tiles.load(builder, _FLOATS, scores, 4 * LANES * part), factor)
                rows.append(builder.select(inside, row, _all(-math.inf)))
                seen.append(inside)
            highest = rows[0]
            for row in rows[1:]:
                highest = builder.select(builder.fcmp_ordered(">", row, highest), row, highest)
            top_place = builder.inttoptr(top_at, _FLOAT.as_pointer())
            top = builder.load(top_place)
            largest = _reduced(builder, "fmax", highest)
            top = builder.select(builder.fcmp_ordered(">", largest, top), largest, top)
            builder.store(top, top_place)
            tops = tiles.repeated(builder, top)
            total = _all(0.0)
            for part, (row, inside) in enumerate(zip(rows, seen, strict=True)):
                weight = exponential(builder, builder.fsub(row, tops))
                weight = builder.select(inside, weight, _all(0.0))
                total = builder.fadd(total, weight)
                if half:
                    weight = tiles.narrowed(builder, weight)
                where = builder.add(out, ir.Constant(ir.IntType(64), (2 if half else 4) * LANES * part))
                builder.store(weight, builder.inttoptr(where, weight.type.as_pointer())).align = 2
            return _reduced(builder, "fadd", total, ir.Constant(_FLOAT, 0.0))

        pointer, place = types.uintp, types.int64
        return types.float32(pointer, place, place, types.float32, pointer, pointer), generate

    return function


weigh_wide = _weigh(half=False)
"""``f(scores, low, high, scale, top, out) -> sum``: 64 scores at an address become weights at another.

Scores are multiplied by `scale`; the number at `top` is raised to the largest of those from `low` to `high`; weights
are ``exp(score - top)`` there and 0 elsewhere. Returns their sum.
"""
weigh_half = _weigh(half=True)
"""The same with weights written as bfloat16."""


def _gate(half: bool) -> Any:
    """``f(gate, up, out)``: ``silu(gate) * up`` for `LANES` numbers at these addresses."""

    @_intrinsic
    def function(typing_context: Any, gate: Any, up: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, factor = (row_tiles.read(builder, where, half) for where in args[:2])
            positive = builder.fcmp_ordered(">=", x, _all(0.0))
            small = exponential(builder, builder.select(positive, builder.fsub(_all(0.0), x), x))
            share = builder.fdiv(builder.select(positive, _all(1.0), small), builder.fadd(_all(1.0), small))
            value = builder.fmul(builder.fmul(x, share), factor)
            row_tiles.write(builder, value, args[2], half)
            return context.get_dummy_value()

        return types.void(types.uintp, types.uintp, types.uintp), generate

    return function


gate_wide, gate_half = _gate(half=False), _gate(half=True)

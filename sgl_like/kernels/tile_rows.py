"""The tile that fits the number of rows that are left."""

from __future__ import annotations

from sgl_like.kernels import tiles
from sgl_like.kernels.jit import compiled

BYTES, HALVES, FLOATS = 0, 1, 2
"""Kinds of numbers: bytes (int8 by uint8), bfloat16, float32."""


@compiled()
def _bytes(x: int, stride: int, w: int, steps: int, out: int, ahead: int, left: int, more: int) -> int:
    if left >= 6:
        tiles.bytes_6(x, stride, w, steps, out, ahead, more)
    elif left == 5:
        tiles.bytes_5(x, stride, w, steps, out, ahead, more)
    elif left == 4:
        tiles.bytes_4(x, stride, w, steps, out, ahead, more)
    elif left == 3:
        tiles.bytes_3(x, stride, w, steps, out, ahead, more)
    elif left == 2:
        tiles.bytes_2(x, stride, w, steps, out, ahead, more)
    else:
        tiles.bytes_1(x, stride, w, steps, out, ahead, more)
    return min(left, 6)


@compiled()
def _bfloats(x: int, stride: int, w: int, steps: int, out: int, ahead: int, left: int, more: int) -> int:
    if left >= 6:
        tiles.bfloats_6(x, stride, w, steps, out, ahead, more)
    elif left == 5:
        tiles.bfloats_5(x, stride, w, steps, out, ahead, more)
    elif left == 4:
        tiles.bfloats_4(x, stride, w, steps, out, ahead, more)
    elif left == 3:
        tiles.bfloats_3(x, stride, w, steps, out, ahead, more)
    elif left == 2:
        tiles.bfloats_2(x, stride, w, steps, out, ahead, more)
    else:
        tiles.bfloats_1(x, stride, w, steps, out, ahead, more)
    return min(left, 6)


@compiled()
def _floats(x: int, stride: int, w: int, steps: int, out: int, ahead: int, left: int, more: int) -> int:
    if left >= 6:
        tiles.floats_6(x, stride, w, steps, out, ahead, more)
    elif left == 5:
        tiles.floats_5(x, stride, w, steps, out, ahead, more)
    elif left == 4:
        tiles.floats_4(x, stride, w, steps, out, ahead, more)
    elif left == 3:
        tiles.floats_3(x, stride, w, steps, out, ahead, more)
    elif left == 2:
        tiles.floats_2(x, stride, w, steps, out, ahead, more)
    else:
        tiles.floats_1(x, stride, w, steps, out, ahead, more)
    return min(left, 6)


@compiled()
def tile_rows(
    kind: int, x: int, stride: int, w: int, steps: int, out: int, ahead: int, left: int, more: int
) -> int:
    """`tiles.tile` for up to 6 of the `left` rows; returns how many they were."""
    if kind == BYTES:
        return _bytes(x, stride, w, steps, out, ahead, left, more)
    if kind == HALVES:
        return _bfloats(x, stride, w, steps, out, ahead, left, more)
    return _floats(x, stride, w, steps, out, ahead, left, more)

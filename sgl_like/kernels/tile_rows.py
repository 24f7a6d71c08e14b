"""The tile that fits the number of rows that are left."""

from __future__ import annotations

from sgl_like.kernels import tiles
from sgl_like.kernels.jit import compiled

BYTES, HALVES, FLOATS = 0, 1, 2
"""Kinds of numbers: bytes (int8 by uint8), bfloat16, float32."""


@compiled()
def tile_rows(kind: int, x: int, stride: int, w: int, steps: int, out: int, ahead: int, left: int) -> int:
    """`tiles.tile` for up to 6 of the `left` rows; returns how many they were."""
    if left >= 6:
        if kind == BYTES:
            tiles.bytes_6(x, stride, w, steps, out, ahead)
        elif kind == HALVES:
            tiles.bfloats_6(x, stride, w, steps, out, ahead)
        else:
            tiles.floats_6(x, stride, w, steps, out, ahead)
        return 6
    if left >= 4:
        if kind == BYTES:
            tiles.bytes_4(x, stride, w, steps, out, ahead)
        elif kind == HALVES:
            tiles.bfloats_4(x, stride, w, steps, out, ahead)
        else:
            tiles.floats_4(x, stride, w, steps, out, ahead)
        return 4
    if left >= 2:
        if kind == BYTES:
            tiles.bytes_2(x, stride, w, steps, out, ahead)
        elif kind == HALVES:
            tiles.bfloats_2(x, stride, w, steps, out, ahead)
        else:
            tiles.floats_2(x, stride, w, steps, out, ahead)
        return 2
    if kind == BYTES:
        tiles.bytes_1(x, stride, w, steps, out, ahead)
    elif kind == HALVES:
        tiles.bfloats_1(x, stride, w, steps, out, ahead)
    else:
        tiles.floats_1(x, stride, w, steps, out, ahead)
    return 1

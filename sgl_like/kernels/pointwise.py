"""Machine code of what happens to a token's numbers between matrix products, one task for each token.

Each kernel is one call where torch would need several, which is most of the time when few tokens are computed.
float32 or bfloat16 in and out, float32 between.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import carray  # type: ignore[attr-defined]
from torch import Tensor

from sgl_like.kernels import exp_tiles, row_tiles
from sgl_like.kernels.bits import as_float, exp, narrow, widen
from sgl_like.kernels.jit import REASSOCIATE, compiled
from sgl_like.kernels.row_tiles import number_at
from sgl_like.kernels.threads import Call, TaskKernel, pointer, run_call, take
from sgl_like.kernels.tiles import LANES

ALONE = 3
"""Tokens up to which one thread is faster than two."""


def run(call: Call) -> None:
    """Run a kernel whose tasks are tokens."""
    run_call(call, threads=1 if call.tasks <= ALONE else None)


def is_half(tensor: Tensor) -> int:
    """1 for bfloat16, 0 for float32."""
    return int(tensor.dtype == torch.bfloat16)


def _rms_norm(numbers):  # type: ignore[no-untyped-def]  # Numba reads a bare signature
    args = carray(numbers, 16)
    weight, columns, half, half_weight = args[3], args[5], args[6], args[7]
    eps = as_float(np.uint32(args[8]))
    size = 2 if half else 4
    vectors = columns // LANES
    whole = vectors * LANES
    while True:
        token = take(numbers)
        if token >= args[1]:
            break
        x, y = args[2] + token * columns * size, args[4] + token * columns * size
        total = np.float32(0.0)
        if vectors:
            if half:
                total += row_tiles.sum_of_squares_half(x, vectors)
            else:
                total += row_tiles.sum_of_squares_wide(x, vectors)
        for i in range(whole, columns):
            total += number_at(x, half, i) * number_at(x, half, i)
        factor = np.float32(1.0) / np.sqrt(total / np.float32(columns) + eps)
        if vectors:
            if not half:
                row_tiles.scaled_wide(x, weight, factor, y, vectors)
            elif half_weight:
                row_tiles.scaled_half_by_half(x, weight, factor, y, vectors)
            else:
                row_tiles.scaled_half(x, weight, factor, y, vectors)
        for i in range(whole, columns):
            value = number_at(x, half, i) * factor * number_at(weight, half_weight, i)
            if half:
                carray(pointer(y + 2 * i), 1, np.uint16)[0] = narrow(value)
            else:
                carray(pointer(y + 4 * i), 1, np.float32)[0] = value


@compiled(fastmath=REASSOCIATE)
def _silu(x: Any) -> Any:
    small = exp(-abs(x))
    return x * (np.float32(1.0) if x >= np.float32(0.0) else small) / (np.float32(1.0) + small)


def _silu_mul(numbers):  # type: ignore[no-untyped-def]
    args = carray(numbers, 16)
    width, half = args[4], args[5]
    size = 2 if half else 4
    whole = width // LANES * LANES
    while True:
        token = take(numbers)
        if token >= args[1]:
            break
        gate, out = args[2] + 2 * token * width * size, args[3] + token * width * size
        up = gate + width * size
        for i in range(0, whole, LANES):
            at = i * size
            if half:
                exp_tiles.gate_half(gate + at, up + at, out + at)
            else:
                exp_tiles.gate_wide(gate + at, up + at, out + at)
        for i in range(whole, width):
            at = i * size
            if half:
                a, b = carray(pointer(gate + at), 1, np.uint16), carray(pointer(up + at), 1, np.uint16)
                carray(pointer(out + at), 1, np.uint16)[0] = narrow(_silu(widen(a[0])) * widen(b[0]))
            else:
                c, d = carray(pointer(gate + at), 1, np.float32), carray(pointer(up + at), 1, np.float32)
                carray(pointer(out + at), 1, np.float32)[0] = _silu(c[0]) * d[0]


def _store_heads(numbers):  # type: ignore[no-untyped-def]
    args = carray(numbers, 16)
    heads, kv_heads, size, turned = args[9], args[10], args[11], args[12]
    all_heads = heads + 2 * kv_heads
    slots = carray(pointer(args[5]), args[1], np.int64)
    while True:
        token = take(numbers)
        if token >= args[1]:
            break
        for head in range(all_heads):
            at = token * all_heads + head
            if head < heads:
                to = args[6] + (token * heads + head) * size * args[13]
            elif head < heads + kv_heads:
                to = args[7] + (slots[token] * kv_heads + head - heads) * size * args[13]
            else:
                to = args[8] + (slots[token] * kv_heads + head - heads - kv_heads) * size * args[13]
            count = turned if head < heads + kv_heads else 0
            half = count // 2
            if args[13] == 2:
                x = carray(pointer(args[2] + 2 * at * size), size, np.uint16)
                y = carray(pointer(to), size, np.uint16)
                cos = carray(pointer(args[3] + 2 * token * turned), count, np.uint16)
                sin = carray(pointer(args[4] + 2 * token * turned), count, np.uint16)
                for i in range(half):
                    a, b, c, s = widen(x[i]), widen(x[half + i]), widen(cos[i]), widen(sin[i])
                    y[i] = narrow(a * c - b * s)
                    y[half + i] = narrow(b * c + a * s)
                for i in range(2 * half, size):
                    y[i] = x[i]
            else:
                wide_x = carray(pointer(args[2] + 4 * at * size), size, np.float32)
                wide_y = carray(pointer(to), size, np.float32)
                wide_cos = carray(pointer(args[3] + 4 * token * turned), count, np.float32)
                wide_sin = carray(pointer(args[4] + 4 * token * turned), count, np.float32)
                for i in range(half):
                    p, q = wide_x[i], wide_x[half + i]
                    wide_y[i] = p * wide_cos[i] - q * wide_sin[i]
                    wide_y[half + i] = q * wide_cos[i] + p * wide_sin[i]
                for i in range(2 * half, size):
                    wide_y[i] = wide_x[i]


rms_norm = TaskKernel(_rms_norm)
silu_mul = TaskKernel(_silu_mul)
store_heads = TaskKernel(_store_heads)

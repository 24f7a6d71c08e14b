"""Machine code of attention over a paged cache: blocks of 64 keys at a time, with running sums (Dao et al., 2022).

A task is one key-value head and some new tokens of a row, with all query heads that share it. Keys and values of a
block are copied from their slots into the layout of `tiles`, so that scores and sums of values are tiles of products.
Blocks begin at multiples of 64 in the sequence: a token's result is the same, to the bit, whichever other tokens are
computed in the same step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from sgl_like.kernels import exp_tiles, tiles
from sgl_like.kernels.bits import as_float, exp, narrow
from sgl_like.kernels.jit import REASSOCIATE, compiled
from sgl_like.kernels.threads import TaskKernel, pointer, prefetch, take
from sgl_like.kernels.tile_rows import FLOATS, HALVES, tile_rows

BLOCK = tiles.BLOCK
MOST_QUERIES = 96
"""Queries (new tokens times query heads) in a task, unless one token has more."""
NEXT_TASK = 2
"""Which task after this one is probably the thread's next, with two threads."""


@compiled()
def _products(half: int, x: int, stride: int, rows: int, w: int, steps: int, out: int) -> None:
    """Products of rows of x with a block of columns, to ``out: [rows, 64]`` float32."""
    m, kind = 0, HALVES if half else FLOATS
    while m < rows:
        m += tile_rows(kind, x + m * stride, stride, w, steps, out + m * 4 * BLOCK, 0, rows - m, 0)


@compiled()
def _pack_keys(rows: Any, words: int, packed: Any) -> None:
    """64 keys of so many 32-bit words, at the addresses `rows`, as ``packed: uint32 [words, 64]``."""
    whole = words // 16 * 16
    for part in range(4):
        for at in range(0, whole, 16):
            tiles.transpose(
                rows.ctypes.data + 128 * part,
                4 * at,
                packed.ctypes.data + 4 * (at * BLOCK + 16 * part),
                4 * BLOCK,
            )
    for j in range(BLOCK):
        key = carray(pointer(rows[j]), words, np.uint32)
        for at in range(whole, words):
            packed[at, j] = key[at]


@compiled()
def _pack_values(half: int, rows: Any, keys: int, head_dim: int, packed: Any) -> None:
    """Values at the addresses `rows` as ``packed: uint32 [column blocks, steps, 64]``.

    A step is two keys in bfloat16, one in float32.
    """
    for block in range(packed.shape[0]):
        first = block * BLOCK
        count = min(BLOCK, head_dim - first)
        if half:
            for step in range((keys + 1) // 2):
                a = carray(pointer(rows[2 * step] + 2 * first), count, np.uint16)
                b = carray(pointer(rows[2 * step + 1] + 2 * first), count, np.uint16)
                to = packed[block, step]
                for d in range(count):
                    to[d] = np.uint32(a[d]) | (np.uint32(b[d]) << np.uint32(16))
        else:
            for step in range(keys):
                value = carray(pointer(rows[step] + 4 * first), count, np.uint32)
                to = packed[block, step]
                for d in range(count):
                    to[d] = value[d]


@compiled(fastmath=REASSOCIATE)
def _cap(scores: Any, scale: Any, softcap: Any) -> None:
    """``softcap * tanh(scale * scores / softcap)``."""
    for j in range(len(scores)):
        x = scale * scores[j] / softcap
        small = exp(np.float32(-2.0) * abs(x))
        size = softcap * (np.float32(1.0) - small) / (np.float32(1.0) + small)
        scores[j] = size if x >= 0 else -size


def _attend(numbers):  # type: ignore[no-untyped-def]  # Numba reads a bare signature
    args = carray(numbers, 16)
    k, v, out, heads, kv_heads, head_dim = args[3], args[4], args[5], args[9], args[10], args[11]
    q_stride, window, half = args[12], args[13], args[14]
    slots = carray(pointer(args[6]), 1 << 40, np.int32)
    tasks = carray(pointer(args[7]), (args[1] // kv_heads, 4), np.int32)
    scale = as_float(np.uint32(args[8] & 0xFFFFFFFF))
    softcap = as_float(np.uint32(args[8] >> 32))
    group = heads // kv_heads
    size = 2 if half else 4
    words = head_dim * size // 4
    per_step = 2 if half else 1  # keys, and numbers of a query
    most = 0
    for task in tasks:
        most = max(most, task[1] * group)
    columns = (head_dim + BLOCK - 1) // BLOCK
    queries = np.zeros((most, words), dtype=np.uint32)
    scores = np.zeros((most, BLOCK), dtype=np.float32)
    weights = np.zeros((most, BLOCK), dtype=np.uint16)
    parts = np.zeros((most, BLOCK), dtype=np.float32)
    sums = np.zeros((most, columns * BLOCK), dtype=np.float32)
    tops = np.zeros(most, dtype=np.float32)
    norms = np.zeros(most, dtype=np.float32)
    keys = np.zeros((words, BLOCK), dtype=np.uint32)
    values = np.zeros((columns, BLOCK // per_step, BLOCK), dtype=np.uint32)
    nothing = np.zeros(words, dtype=np.uint32)
    key_rows = np.zeros(BLOCK, dtype=np.int64)
    value_rows = np.zeros(BLOCK, dtype=np.int64)
    while True:
        number = take(numbers)
        if number >= args[1]:
            break
        kv_head = number % kv_heads
        first, tokens, begin, seen = tasks[number // kv_heads]
        rows = tokens * group
        for r in range(rows):
            at = (first + r // group) * q_stride + (kv_head * group + r % group) * head_dim
            queries[r] = carray(pointer(args[2] + at * size), words, np.uint32)
        tops[:rows] = -np.inf
        norms[:rows] = 0.0
        sums[:rows] = 0.0
        earliest = max(0, seen - tokens + 1 - window) if window else 0
        for start in range(earliest // BLOCK * BLOCK, seen, BLOCK):
            count = min(BLOCK, seen - start)
            for j in range(BLOCK):
                key_rows[j] = value_rows[j] = nothing.ctypes.data
                if j < count:
                    at = (slots[begin + start + j] * kv_heads + kv_head) * head_dim * size
                    key_rows[j], value_rows[j] = k + at, v + at
            near, left, its_head = begin + start + BLOCK, seen - start - BLOCK, kv_head  # the next block
            if left <= 0 and number + NEXT_TASK < args[1]:  # ... or the first one of a task to come
                its_head = (number + NEXT_TASK) % kv_heads
                _, its_tokens, near, left = tasks[(number + NEXT_TASK) // kv_heads]
                skipped = max(0, left - its_tokens + 1 - window) // BLOCK * BLOCK if window else 0
                near, left = near + skipped, left - skipped
            for j in range(min(BLOCK, left)):
                at = (slots[near + j] * kv_heads + its_head) * head_dim * size
                for line in range(0, head_dim * size, 64):
                    prefetch(k + at + line)
                    prefetch(v + at + line)
            _pack_keys(key_rows, words, keys)
            _pack_values(half, value_rows, count, head_dim, values)
            _products(half, queries.ctypes.data, 4 * words, rows, keys.ctypes.data, words, scores.ctypes.data)
            for r in range(rows):
                end = seen - (tokens - 1 - r // group)
                high = min(count, end - start)
                low = max(0, end - window - start) if window else 0
                if low >= high:
                    low = high = 0
                factor, old = scale, tops[r]
                if softcap > 0:
                    _cap(scores[r, low:high], scale, softcap)
                    factor = np.float32(1.0)
                score, top = scores.ctypes.data + 4 * BLOCK * r, tops.ctypes.data + 4 * r
                if half:
                    total = exp_tiles.weigh_half(
                        score, low, high, factor, top, weights.ctypes.data + 2 * BLOCK * r
                    )
                else:
                    total = exp_tiles.weigh_wide(score, low, high, factor, top, score)
                if tops[r] > old and norms[r] > 0:
                    kept = exp(old - tops[r])
                    norms[r] *= kept
                    for d in range(columns * BLOCK):
                        sums[r, d] *= kept
                norms[r] += total
            steps = (count + per_step - 1) // per_step
            x, stride = (weights.ctypes.data, 2 * BLOCK) if half else (scores.ctypes.data, 4 * BLOCK)
            for block in range(columns):
                _products(half, x, stride, rows, values[block].ctypes.data, steps, parts.ctypes.data)
                for r in range(rows):
                    for d in range(BLOCK):
                        sums[r, block * BLOCK + d] += parts[r, d]
        for r in range(rows):
            at = ((first + r // group) * heads + kv_head * group + r % group) * head_dim
            inverse = np.float32(1.0) / norms[r]
            if half:
                narrow_out = carray(pointer(out + 2 * at), head_dim, np.uint16)
                for d in range(head_dim):
                    narrow_out[d] = narrow(sums[r, d] * inverse)
            else:
                wide_out = carray(pointer(out + 4 * at), head_dim, np.float32)
                for d in range(head_dim):
                    wide_out[d] = sums[r, d] * inverse


attend = TaskKernel(_attend)

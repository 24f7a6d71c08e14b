"""What sampling needs from a row of logits, in one pass over the vocabulary: maxima and sums of exponentials by block.

Contract: ``block_stats(logits, inverse_temperatures) -> (tops, sums)`` with ``logits: [rows, vocab]`` float32 (-inf
for banned tokens, no NaN, no +inf), ``inverse_temperatures: float32[rows]``, ``tops, sums: float32[rows, blocks]``:
for each `BLOCK` tokens in a row the greatest logit x and the sum of ``exp((x - top) / temperature)``; a block of -inf
only has the sum 0. ``exp`` is accurate to 3e-7 of its value.

``above(row, tops, bound) -> ids``: tokens with a logit of at least `bound`, in order; only blocks that have one are
looked at. So a distribution's total, its likeliest tokens and a draw from it cost one pass over the vocabulary and
a few blocks: no sort, no copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgl_like.kernels.bits import exp
from sgl_like.kernels.jit import REASSOCIATE, compiled

BLOCK = 128
"""Tokens per block: 512 bytes, read a second time while they are in the first-level cache."""

Floats = NDArray[np.float32]


def reference_stats(logits: Floats, inverse_temperatures: Floats) -> tuple[Floats, Floats]:
    """Plain definition, computed in float64."""
    rows, vocab = logits.shape
    blocks = -(-vocab // BLOCK)
    padded = np.full((rows, blocks * BLOCK), -np.inf)
    padded[:, :vocab] = logits
    parts = padded.reshape(rows, blocks, BLOCK)
    tops = parts.max(axis=2)
    shift = np.where(np.isinf(tops), 0, tops)[:, :, None]
    sums = np.exp((parts - shift) * inverse_temperatures[:, None, None]).sum(axis=2)
    return tops.astype(np.float32), sums.astype(np.float32)


def block_stats(logits: Floats, inverse_temperatures: Floats) -> tuple[Floats, Floats]:
    """CPU version; see the module's contract."""
    shape = (len(logits), -(-logits.shape[1] // BLOCK))
    tops, sums = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    _block_stats(logits, inverse_temperatures, tops, sums)
    return tops, sums


def above(row: Floats, tops: Floats, bound: float) -> NDArray[np.int64]:
    """See the module's contract. `row` is ``[vocab]``, `tops` its ``[blocks]``."""
    blocks = np.flatnonzero(tops >= np.float32(bound))
    found = np.empty(len(blocks) * BLOCK, dtype=np.int64)
    return found[: _above(row, blocks, np.float32(bound), found)]


@compiled(fastmath=REASSOCIATE | {"nnan"})
def _block_stats(logits: Any, inverse_temperatures: Any, tops: Any, sums: Any) -> None:
    vocab = logits.shape[1]
    for r in range(logits.shape[0]):
        scale = inverse_temperatures[r]
        for b in range(tops.shape[1]):
            block = logits[r, b * BLOCK : min((b + 1) * BLOCK, vocab)]
            top = np.float32(-np.inf)
            for i in range(len(block)):
                top = max(top, block[i])
            total = np.float32(0.0)
            if top > np.float32(-np.inf):
                for i in range(len(block)):
                    total += exp((block[i] - top) * scale)
            tops[r, b] = top
            sums[r, b] = total


@compiled()
def _above(row: Any, blocks: Any, bound: Any, found: Any) -> int:
    count = 0
    for b in blocks:
        for i in range(b * BLOCK, min((b + 1) * BLOCK, len(row))):
            if row[i] >= bound:
                found[count] = i
                count += 1
    return count

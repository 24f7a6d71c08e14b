"""`kernels.sample` in Triton: one program for each row, passes over the vocabulary instead of a sort.

    1. greatest logit, its token, and the sum of weights (online)
    2. top-k, top-p: the least logit that is kept, by a search that tries `PIVOTS` thresholds in each pass and so
       leaves a ninth of the interval; the count and the weight above a threshold say on which side it is
    3. the draw: blocks are added up until the sum passes

A row that has neither top-k nor top-p skips the second step. After `PASSES` passes the interval is 2e-8 of its width,
which float32 does not tell apart.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.sample import SampleRows
from sgl_like.kernels.triton.base import block_of

BLOCK = 4096
PIVOTS = 8
PASSES = 8
DEPTH = 40.0
"""Temperatures below the greatest logit down to which thresholds are looked for: what lies lower has no weight."""


@triton.jit
def _row(logits, masks, at, vocab, HAS_MASK: tl.constexpr):
    """Logits of a block; -inf for what is banned or no token."""
    x = tl.load(logits + at, mask=at < vocab, other=float("-inf"))
    if HAS_MASK:
        word = tl.load(masks + at // 32, mask=at < vocab, other=0)
        x = tl.where(((word >> (at % 32)) & 1) == 0, float("-inf"), x)
    return x


@triton.jit
def _least(
    logits, masks, vocab, top, inverse, low, high, wanted, BY_COUNT: tl.constexpr, HAS_MASK: tl.constexpr,
    PIVOTS: tl.constexpr, PASSES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The greatest threshold in [low, high] above which there is still as much as wanted: tokens, or weight."""
    step = tl.arange(0, PIVOTS) + 1
    for _ in range(PASSES):
        pivots = low + (high - low) * step / (PIVOTS + 1)
        found = tl.zeros([PIVOTS], tl.float32)
        for start in range(0, vocab, BLOCK):
            x = _row(logits, masks, start + tl.arange(0, BLOCK), vocab, HAS_MASK)
            each = (x > float("-inf")).to(tl.float32) if BY_COUNT else tl.exp((x - top) * inverse)
            found += tl.sum(tl.where(x[:, None] >= pivots[None, :], each[:, None], 0.0), axis=0)
        enough = found >= wanted
        above = tl.min(tl.where(enough, high, pivots), axis=0)
        low = tl.max(tl.where(enough, pivots, low), axis=0)
        high = above
    return low


@triton.jit
def _sample(
    logits, masks, temperature, top_k, top_p, min_p, uniform, out, vocab, words, HAS_MASK: tl.constexpr,
    DEPTH: tl.constexpr, PIVOTS: tl.constexpr, PASSES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    logits += r * vocab
    masks += r * words
    heat = tl.load(temperature + r)
    inverse = 1.0 / tl.where(heat > 0.0, heat, 1.0)
    top, likeliest, total = float("-inf"), 0, 0.0
    for start in range(0, vocab, BLOCK):
        x = _row(logits, masks, start + tl.arange(0, BLOCK), vocab, HAS_MASK)
        best = tl.max(x, axis=0)
        if best > top:
            likeliest = start + tl.argmax(x, axis=0, tie_break_left=True)
            total = total * tl.exp((top - best) * inverse)
            top = best
        total += tl.sum(
            tl.where(x > float("-inf"), tl.exp((x - tl.maximum(top, -3e38)) * inverse), 0.0), axis=0
        )
    token = likeliest
    if heat > 0.0:
        least = float("-inf")
        floor = top - DEPTH * heat
        k = tl.load(top_k + r)
        if k > 0:
            if k < vocab:
                least = _least(
                    logits,
                    masks,
                    vocab,
                    top,
                    inverse,
                    floor,
                    top,
                    k.to(tl.float32),
                    True,
                    HAS_MASK,
                    PIVOTS,
                    PASSES,
                    BLOCK,
                )
                total = 0.0
                for start in range(0, vocab, BLOCK):
                    x = _row(logits, masks, start + tl.arange(0, BLOCK), vocab, HAS_MASK)
                    total += tl.sum(tl.where(x >= least, tl.exp((x - top) * inverse), 0.0), axis=0)
        p = tl.load(top_p + r)
        if p < 1.0:
            floor = tl.maximum(floor, least)
            least = tl.maximum(
                least,
                _least(
                    logits,
                    masks,
                    vocab,
                    top,
                    inverse,
                    floor,
                    top,
                    p * total,
                    False,
                    HAS_MASK,
                    PIVOTS,
                    PASSES,
                    BLOCK,
                ),
            )
        m = tl.load(min_p + r)
        if m > 0.0:
            least = tl.maximum(least, top + heat * tl.log(m) - 1e-6 * tl.abs(top))
        total = 0.0
        for start in range(0, vocab, BLOCK):
            x = _row(logits, masks, start + tl.arange(0, BLOCK), vocab, HAS_MASK)
            total += tl.sum(
                tl.where((x >= least) & (x > float("-inf")), tl.exp((x - top) * inverse), 0.0), axis=0
            )
        wanted = tl.load(uniform + r) * total
        before = 0.0
        done = 0
        for start in range(0, vocab, BLOCK):
            if done == 0:
                at = start + tl.arange(0, BLOCK)
                x = _row(logits, masks, at, vocab, HAS_MASK)
                weights = tl.where((x >= least) & (x > float("-inf")), tl.exp((x - top) * inverse), 0.0)
                sums = before + tl.cumsum(weights, axis=0)
                passed = (sums > wanted) & (weights > 0.0)
                if tl.max(passed.to(tl.int32), axis=0) > 0:
                    token = tl.min(tl.where(passed, at, vocab), axis=0)
                    done = 1
                elif (
                    tl.max(weights, axis=0) > 0.0
                ):  # rounding may leave the sum just below: then it is the last one
                    token = tl.max(tl.where(weights > 0.0, at, 0), axis=0)
                before += tl.sum(weights, axis=0)
    tl.store(out + r, token)


def sample(logits: Tensor, rows: SampleRows, masks: Tensor | None = None) -> Tensor:
    """See `kernels.sample`."""
    assert logits.dtype == torch.float32 and logits.is_contiguous() and logits.shape[1] > 0
    count, vocab = logits.shape
    out = torch.empty(count, dtype=torch.int64, device=logits.device)
    if count:
        block = block_of(vocab, least=32, most=BLOCK)
        _sample[(count,)](
            logits, logits if masks is None else masks, rows.temperature, rows.top_k, rows.top_p, rows.min_p,
            rows.uniform, out, vocab, 0 if masks is None else masks.shape[1], HAS_MASK=masks is not None, DEPTH=DEPTH,
            PIVOTS=PIVOTS, PASSES=PASSES, BLOCK=block, num_warps=8,
        )  # fmt: skip
    return out

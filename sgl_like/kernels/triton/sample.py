"""`kernels.sample` in Triton: one pass over the vocabulary by all of the GPU, then a program for each row that only
looks at groups of tokens of which something may be kept.

    1. `group_stats`: the greatest logit and the weight of every 128 tokens
    2. from these, a bound that what is kept cannot lie below; the groups that reach it are listed
    3. top-k, top-p: the least logit that is kept, by a search that tries `PIVOTS` thresholds in each pass over the
       listed groups and so leaves a ninth of the interval; the count and the weight above a threshold say on which
       side it is
    4. the draw: among groups by their weights, then among the tokens of one

Greedy rows and rows without filters skip 2 and 3: they read the logits once. Thresholds are searched among float32's
bits, which are as many integers in the same order, so what is found is exact: ten passes would try all there are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.sample import SampleRows
from sgl_like.kernels.triton.base import INTERPRETED, block_of
from sgl_like.kernels.triton.vocabulary import GROUP, group_stats, inverse_of, load_logits

TILE = 32
"""Listed groups that are looked at together."""
PIVOTS = 32 if INTERPRETED else 8
"""Thresholds that are tried at a time. What is found does not depend on it."""


@triton.jit
def _key(x):
    """The place of a float32 among all of them, an int64; `_number` is the way back."""
    bits = x.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)


@triton.jit
def _number(key):
    bits = key.to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _narrow(least, above, pivots, found, wanted):
    """Of the interval [least, above) the part in which the greatest threshold lies above which there is enough, by what
    was found above some pivots. It has one end left when no token lies between the two.
    """
    enough = found >= wanted
    least = tl.maximum(least, tl.max(tl.where(enough, pivots, least), axis=0))
    above = tl.min(tl.where(enough, above, pivots), axis=0)
    exact = tl.max(
        (found == wanted).to(tl.int32), axis=0
    )  # then any threshold up to the next token's will do
    return least, tl.where(exact > 0, least + 1, above)


@triton.jit
def _bound(tops, weights, wanted, low, top, PIVOTS: tl.constexpr):
    """The greatest threshold in [low, top] which groups of so much weight reach with their greatest logit; else low."""
    least, above = _key(low), _key(top) + 1
    while above - least > 1:
        pivots = least + (above - least) * (tl.arange(0, PIVOTS) + 1) // (PIVOTS + 1)
        reaches = tops[:, None] >= _number(pivots)[None, :]
        found = tl.sum(tl.where(reaches, weights[:, None], 0.0), axis=0)
        least, above = _narrow(least, above, pivots, found, wanted)
    return _number(least)


@triton.jit
def _listed(logits, mask, listed, start, count, vocab, known, MASKED: tl.constexpr, GROUP: tl.constexpr,
            TILE: tl.constexpr):  # fmt: skip
    """Some listed groups, and their logits."""
    i = start + tl.arange(0, TILE)
    group = tl.load(listed + i, mask=i < count, other=0)
    token = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    x = load_logits(logits, mask, token, vocab, known, MASKED)
    return group, tl.where((i < count)[:, None], x, float("-inf"))


@triton.jit
def _least(
    logits, mask, listed, count, vocab, known, low, top, inverse, wanted, BY_COUNT: tl.constexpr,
    MASKED: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr, PIVOTS: tl.constexpr,
):  # fmt: skip
    """The greatest threshold in [low, top] which there is as much as wanted above: tokens, or weight; else low."""
    least, above = _key(low), _key(top) + 1
    while above - least > 1:
        pivots = least + (above - least) * (tl.arange(0, PIVOTS) + 1) // (PIVOTS + 1)
        found = tl.zeros([TILE, PIVOTS], tl.float32)
        for start in range(0, count, TILE):
            _, x = _listed(logits, mask, listed, start, count, vocab, known, MASKED, GROUP, TILE)
            each = tl.full([TILE, GROUP], 1.0, tl.float32) if BY_COUNT else tl.exp((x - top) * inverse)
            reaches = x[:, :, None] >= _number(pivots)[None, None, :]
            found += tl.sum(tl.where(reaches, each[:, :, None], 0.0), axis=1)
        least, above = _narrow(least, above, pivots, tl.sum(found, axis=0), wanted)
    return _number(least)


@triton.jit
def _weigh(
    logits, mask, listed, count, vocab, known, least, top, inverse, sums, MASKED: tl.constexpr,
    GROUP: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Put the weight that each listed group has from a threshold on into `sums`; its total."""
    weights = tl.zeros([TILE], tl.float32)
    for start in range(0, count, TILE):
        group, x = _listed(logits, mask, listed, start, count, vocab, known, MASKED, GROUP, TILE)
        weight = tl.sum(tl.where(x >= least, tl.exp((x - top) * inverse), 0.0), axis=1)
        tl.store(sums + group, weight, mask=start + tl.arange(0, TILE) < count)
        weights += weight
    tl.debug_barrier()  # before other threads read them
    return tl.sum(weights, axis=0)


@triton.jit
def _place(weights, share, SIZE: tl.constexpr):
    """The first place where the cumulative weight exceeds a share of the whole, and by which share of the weight
    there that is passed.
    """
    at = tl.arange(0, SIZE)
    cumulative = tl.cumsum(weights, axis=0)
    wanted = share * tl.max(cumulative, axis=0)
    last = tl.max(tl.where(weights > 0.0, at, 0), axis=0)  # rounding may leave nothing that passes
    place = tl.min(tl.where((cumulative > wanted) & (weights > 0.0), at, last), axis=0)
    here = tl.sum(tl.where(at == place, weights, 0.0), axis=0)
    before = tl.sum(tl.where(at == place, cumulative, 0.0), axis=0) - here
    return place, tl.maximum((wanted - before) / here, 0.0)


@triton.jit
def _filter(
    logits, mask, listed, sums, vocab, known, heat, inverse, top_k, top_p, min_p, tops, weights, top, groups,
    MASKED: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr, TILE: tl.constexpr, PIVOTS: tl.constexpr,
):  # fmt: skip
    """The least logit that is kept, and the groups' weights from there on."""
    by_min_p = tl.where(min_p > 0.0, top + heat * tl.log(tl.maximum(min_p, 1e-37)), float("-inf"))
    total = tl.sum(weights, axis=0)
    low = by_min_p
    limited = (top_k > 0) & (top_k < vocab)
    if limited:
        low = _bound(tops, tl.full([GROUPS], 1.0, tl.float32), top_k, top - float("inf"), top, PIVOTS)
    elif top_p < 1.0:
        # all tokens below this have together half of the weight that is left out, at most
        unlikely = top + heat * tl.log(tl.maximum(0.5 * (1.0 - top_p) * total / vocab, 1e-37))
        low = tl.maximum(
            low, _bound(tops, tl.exp((tops - top) * inverse), top_p * total, unlikely, top, PIVOTS)
        )
    g = tl.arange(0, GROUPS)
    reaches = (tops >= low) & (tops > float("-inf"))
    tl.store(listed + tl.cumsum(reaches.to(tl.int32), axis=0) - 1, g, mask=reaches)
    count = tl.sum(reaches.to(tl.int32), axis=0)
    tl.debug_barrier()  # before other threads read the list
    least = low
    if limited:
        least = _least(
            logits, mask, listed, count, vocab, known, low, top, inverse, top_k, True, MASKED, GROUP, TILE, PIVOTS
        )  # fmt: skip
        if top_p < 1.0:
            total = _weigh(
                logits, mask, listed, count, vocab, known, least, top, inverse, sums, MASKED, GROUP, TILE
            )  # fmt: skip
    if top_p < 1.0:
        least = _least(
            logits, mask, listed, count, vocab, known, least, top, inverse, top_p * total, False, MASKED, GROUP, TILE,
            PIVOTS,
        )  # fmt: skip
    least = tl.maximum(least, by_min_p)
    _weigh(logits, mask, listed, count, vocab, known, least, top, inverse, sums, MASKED, GROUP, TILE)
    return least, tl.where(reaches, tl.load(sums + g, mask=reaches, other=0.0), 0.0)


@triton.jit
def _sample(
    logits, masks, mask_of, temperature, top_k, top_p, min_p, uniform, tops, sums, listed, out, vocab, words, groups,
    MASKED: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr, TILE: tl.constexpr, PIVOTS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    logits += r * vocab
    sums += r * groups
    m = tl.load(mask_of + r).to(tl.int64) if MASKED else -1
    mask = masks + m * words
    known = tl.where(m >= 0, vocab, 0)
    g = tl.arange(0, GROUPS)
    best = tl.load(tops + r * groups + g, mask=g < groups, other=float("-inf"))
    top = tl.max(best, axis=0)
    heat, k, p, q = tl.load(temperature + r), tl.load(top_k + r), tl.load(top_p + r), tl.load(min_p + r)
    inverse = inverse_of(heat)
    weights = tl.load(sums + g, mask=g < groups, other=0.0) * tl.exp((best - top) * inverse)
    least = top  # greedy: the first of the greatest
    share = tl.load(uniform + r)
    if heat == 0.0:
        weights, share = (best == top).to(tl.float32), 0.0
    elif ((k > 0) & (k < vocab)) | (p < 1.0) | (q > 0.0):
        least, weights = _filter(
            logits, mask, listed + r * groups, sums, vocab, known, heat, inverse, k, p, q, best, weights, top, groups,
            MASKED, GROUP, GROUPS, TILE, PIVOTS,
        )  # fmt: skip
    else:
        least = float("-inf")
    group, share = _place(weights, share, GROUPS)
    token = group * GROUP + tl.arange(0, GROUP)
    x = load_logits(logits, mask, token, vocab, known, MASKED)
    place, _ = _place(tl.where(x >= least, tl.exp((x - top) * inverse), 0.0), share, GROUP)
    tl.store(out + r, group * GROUP + place)


def sample(logits: Tensor, rows: SampleRows, masks: Tensor | None = None) -> Tensor:
    """See `kernels.sample`."""
    count, vocab = logits.shape
    out = torch.empty(count, dtype=torch.int64, device=logits.device)
    mask_of, words = rows.mask, 0
    if masks is not None:
        words = masks.shape[1]
        mask_of = torch.arange(count, dtype=torch.int32, device=logits.device) if mask_of is None else mask_of
    tops, sums = group_stats(logits, rows.temperature, masks, mask_of)
    if count:
        groups = tops.shape[1]
        listed = torch.empty(tops.shape, dtype=torch.int32, device=logits.device)
        _sample[(count,)](
            logits, logits if masks is None else masks, mask_of, rows.temperature, rows.top_k, rows.top_p, rows.min_p,
            rows.uniform, tops, sums, listed, out, vocab, words, groups, MASKED=masks is not None, GROUP=GROUP,
            GROUPS=block_of(groups), TILE=block_of(groups, most=TILE), PIVOTS=PIVOTS, num_warps=16,
        )  # fmt: skip
    return out

"""`kernels.sample` in Triton: one pass over the vocabulary by all of the GPU, then a program for each row that only
looks at groups of tokens of which something may be kept.

    1. `group_stats`: the greatest logit and the weight of every 128 tokens
    2. from these, a bound that what is kept cannot lie below; the groups that reach it are listed
    3. top-k, top-p: the least logit that is kept, by a search that tries `PIVOTS` thresholds in each pass over the
       listed groups and so leaves a ninth of the interval; the count and the weight above a threshold say on which
       side it is; then groups that do not reach the interval any more are left out of the list
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
from sgl_like.kernels.triton.vocabulary import GROUP, Masks, group_stats, inverse_of, load_logits, mask_of_row

TILE = tl.constexpr(16)
"""Listed groups that are looked at together: with more of them, what is found does not fit into the registers."""
PIVOTS = tl.constexpr(32 if INTERPRETED else 8)
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
    was found above some pivots. One threshold is left of it where no token lies between its ends.
    """
    enough = found >= wanted
    least = tl.maximum(least, tl.max(tl.where(enough, pivots, least), axis=0))
    above = tl.min(tl.where(enough, above, pivots), axis=0)
    exact = tl.max((found == wanted).to(tl.int32), axis=0)  # any threshold up to the next token's will do
    return least, tl.where(exact > 0, least + 1, above)


@triton.jit
def _pivots(least, above):
    return least + (above - least) * (tl.arange(0, PIVOTS) + 1) // (PIVOTS + 1)


@triton.jit
def _bound(tops, weights, wanted, low, top):
    """The greatest threshold in [low, top] which groups of so much weight reach with their greatest logit; else low."""
    least, above = _key(low), _key(top) + 1
    while above - least > 1:
        pivots = _pivots(least, above)
        reaches = tops[:, None] >= _number(pivots)[None, :]
        found = tl.sum(tl.where(reaches, weights[:, None], 0.0), axis=0)
        least, above = _narrow(least, above, pivots, found, wanted)
    return _number(least)


@triton.jit
def _reach(tops, low):
    """Which groups have a token from a threshold on; none of those of which all is banned."""
    return (tops >= low) & (tops > float("-inf"))


@triton.jit
def _list(tops, low, listed):
    """List the groups that reach a threshold, in order; how many there are."""
    reaches = _reach(tops, low)
    places = tl.cumsum(reaches.to(tl.int32), axis=0)
    tl.store(listed + places - 1, tl.arange(0, tops.shape[0]), mask=reaches)
    tl.debug_barrier()  # before other threads read them
    return tl.max(places, axis=0)


@triton.jit
def _load(logits, mask, vocab, known, listed, start, count):
    """Some of the listed groups, and their logits."""
    i = start + tl.arange(0, TILE)
    group = tl.load(listed + i, mask=i < count, other=0)
    token = tl.where(i < count, group, vocab)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    return group, load_logits(logits, mask, token, vocab, known)


@triton.jit
def _least(logits, mask, vocab, known, tops, listed, low, top, inverse, wanted, BY_COUNT: tl.constexpr):
    """The greatest threshold in [low, top] above which there is as much as wanted, tokens or weight; else low."""
    least, above = _key(low), _key(top) + 1
    while above - least > 1:
        count = _list(tops, _number(least), listed)
        pivots = _pivots(least, above)
        # added up when all is seen, so that threads wait for each other once
        found = tl.zeros([PIVOTS, TILE, GROUP], tl.float32)
        first = tl.full([1, TILE, GROUP], float("inf"), tl.float32)
        last = tl.full([1, TILE, GROUP], float("-inf"), tl.float32)
        for start in range(0, count, TILE):
            _, x = _load(logits, mask, vocab, known, listed, start, count)
            x = x[None, :, :]
            each = 1.0 if BY_COUNT else tl.exp((x - top) * inverse)
            found += tl.where(x >= _number(pivots)[:, None, None], 1.0, 0.0) * each
            inside = (x >= _number(least)) & (x <= _number(above - 1))
            first = tl.minimum(first, tl.where(inside, x, float("inf")))
            last = tl.maximum(last, tl.where(inside, x, float("-inf")))
        total = tl.sum(tl.sum(found, axis=1), axis=1)
        least, above = _narrow(least, above, pivots, total, wanted)
        # only logits that tokens have are of interest; there may be none if rounding has left less than wanted
        least = tl.maximum(least, tl.minimum(_key(tl.min(first)), above - 1))
        above = tl.minimum(above, _key(tl.max(last)) + 1)
    return _number(least)


@triton.jit
def _weigh(logits, mask, vocab, known, tops, listed, sums, least, top, inverse):
    """The weight that each group has from a threshold on. Overwrites `sums`."""
    count = _list(tops, least, listed)
    for start in range(0, count, TILE):
        group, x = _load(logits, mask, vocab, known, listed, start, count)
        weight = tl.sum(tl.where(x >= least, tl.exp((x - top) * inverse), 0.0), axis=1)
        tl.store(sums + group, weight, mask=start + tl.arange(0, TILE) < count)
    tl.debug_barrier()  # before other threads read them
    return tl.load(sums + tl.arange(0, tops.shape[0]), mask=_reach(tops, least), other=0.0)


@triton.jit
def _place(weights, share):
    """The first place where the cumulative weight exceeds a share of the whole, and by which share of the weight
    there that is passed.
    """
    at = tl.arange(0, weights.shape[0])
    cumulative = tl.cumsum(weights, axis=0)
    wanted = share * tl.max(cumulative, axis=0)
    last = tl.max(tl.where(weights > 0.0, at, 0), axis=0)  # rounding may leave nothing that passes
    place = tl.min(tl.where((cumulative > wanted) & (weights > 0.0), at, last), axis=0)
    here = tl.sum(tl.where(at == place, weights, 0.0), axis=0)
    before = tl.sum(tl.where(at == place, cumulative, 0.0), axis=0) - here
    return place, tl.maximum((wanted - before) / here, 0.0)


@triton.jit
def _filter(
    logits, mask, vocab, known, tops, listed, sums, weights, top, heat, inverse, top_k, top_p, min_p
):  # fmt: skip
    """The least logit that is kept, and the groups' weights from there on."""
    by_min_p = tl.where(min_p > 0.0, top + heat * tl.log(tl.maximum(min_p, 1e-37)), float("-inf"))
    least = by_min_p
    if (top_k > 0) & (top_k < vocab):
        low = _bound(tops, tl.full([tops.shape[0]], 1.0, tl.float32), top_k, top - float("inf"), top)
        least = _least(logits, mask, vocab, known, tops, listed, low, top, inverse, top_k, True)
        if top_p < 1.0:
            weights = _weigh(logits, mask, vocab, known, tops, listed, sums, least, top, inverse)
    if top_p < 1.0:
        total = tl.sum(weights, axis=0)
        wanted = top_p * total
        # all tokens below this have together half of the weight that is left out, at most
        unlikely = top + heat * tl.log(tl.maximum((total - wanted) * 0.5 / vocab, 1e-37))
        low = _bound(tops, tl.exp((tops - top) * inverse), wanted, tl.maximum(least, unlikely), top)
        least = _least(logits, mask, vocab, known, tops, listed, low, top, inverse, wanted, False)
    least = tl.maximum(least, by_min_p)
    return least, _weigh(logits, mask, vocab, known, tops, listed, sums, least, top, inverse)


@triton.jit
def _sample(
    logits, masks, mask_of, temperature, top_k, top_p, min_p, uniform, tops, sums, listed, out, vocab, words, groups,
    MASKED: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    logits += r * vocab
    sums += r * groups
    listed += r * groups
    mask, known = mask_of_row(masks, mask_of, r, vocab, words, MASKED)
    g = tl.arange(0, GROUPS)
    best = tl.load(tops + r * groups + g, mask=g < groups, other=float("-inf"))
    top = tl.max(best, axis=0)
    heat, k, p, q = tl.load(temperature + r), tl.load(top_k + r), tl.load(top_p + r), tl.load(min_p + r)
    inverse = inverse_of(heat)
    weights = tl.load(sums + g, mask=g < groups, other=0.0) * tl.exp((best - top) * inverse)
    least, share = float("-inf"), tl.load(uniform + r)
    if heat == 0.0:  # the first of the greatest
        least, share = top, 0.0
        weights = (best == top).to(tl.float32)
    elif ((k > 0) & (k < vocab)) | (p < 1.0) | (q > 0.0):
        least, weights = _filter(
            logits, mask, vocab, known, best, listed, sums, weights, top, heat, inverse, k, p, q
        )  # fmt: skip
    group, share = _place(weights, share)
    x = load_logits(logits, mask, group * GROUP + tl.arange(0, GROUP), vocab, known)
    place, _ = _place(tl.where(x >= least, tl.exp((x - top) * inverse), 0.0), share)
    tl.store(out + r, group * GROUP + place)


def sample(logits: Tensor, rows: SampleRows, masks: Tensor | None = None) -> Tensor:
    """See `kernels.sample`."""
    count, vocab = logits.shape
    out = torch.empty(count, dtype=torch.int64, device=logits.device)
    given = Masks.given(count, masks, rows.mask, logits.device)
    tops, sums = group_stats(logits, rows.temperature, given)
    if count:
        groups = tops.shape[1]
        listed = torch.empty(tops.shape, dtype=torch.int32, device=logits.device)
        _sample[(count,)](
            logits, given.packed, given.of_row, rows.temperature, rows.top_k, rows.top_p, rows.min_p, rows.uniform,
            tops, sums, listed, out, vocab, given.words, groups,
            MASKED=given.any, GROUPS=block_of(groups), num_warps=16,
        )  # fmt: skip
    return out

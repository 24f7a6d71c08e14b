"""`kernels.vocabulary` in Triton: a row of logits as the maxima and sums of exponentials of its groups of tokens.

A program has some groups of one row, so the whole of a GPU reads the logits, once. What comes out for a group does not
depend on how many of them a program has.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import INTERPRETED, block_of

GROUP = 128
"""Tokens of a group."""
TILE = 1024 if INTERPRETED else 32
"""Groups of a program, at most."""


@triton.jit
def inverse_of(temperature):
    """What logits are multiplied by; 1 for temperature 0. Within bounds, so that no product with it is NaN."""
    return 1.0 / tl.minimum(tl.maximum(tl.where(temperature > 0.0, temperature, 1.0), 1e-30), 1e30)


@triton.jit
def load_logits(logits, mask, token, vocab, known, MASKED: tl.constexpr):
    """Logits of tokens of a row; -inf for what is beyond the vocabulary, or among the first `known` tokens and banned
    by the packed mask.
    """
    x = tl.load(logits + token, mask=token < vocab, other=float("-inf"))
    if MASKED:
        word = tl.load(mask + token // 32, mask=token < known, other=-1)
        x = tl.where(((word >> (token % 32)) & 1) == 0, float("-inf"), x)
    return x


@triton.jit
def _stats(
    logits, temperatures, masks, mask_of, tops, sums, vocab, words, groups,
    HEATED: tl.constexpr, MASKED: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * TILE + tl.arange(0, TILE)
    token = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    m = tl.load(mask_of + r).to(tl.int64) if MASKED else -1
    known = tl.where(m >= 0, vocab, 0)
    x = load_logits(logits + r * vocab, masks + m * words, token, vocab, known, MASKED)
    top = tl.max(x, axis=1)
    below = x - tl.maximum(top, -3e38)[:, None]  # no NaN for a group of -inf
    if HEATED:
        below *= inverse_of(tl.load(temperatures + r))
    tl.store(tops + r * groups + group, top, mask=group < groups)
    tl.store(sums + r * groups + group, tl.sum(tl.exp(below), axis=1), mask=group < groups)


def group_stats(
    logits: Tensor,
    temperatures: Tensor | None = None,
    masks: Tensor | None = None,
    mask_of: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Of each `GROUP` tokens of a row the greatest logit, and the sum of ``exp((logit - greatest) / temperature)``.

    Args:
        logits: float32 ``[rows, vocab]``, contiguous; -inf for banned tokens.
        temperatures: float32 ``[rows]``; 0, or None for all: 1.
        masks: int32 ``[n, ceil(vocab / 32)]``, see `token_mask`.
        mask_of: int32 ``[rows]``, the mask of each row; -1: none. Needed with `masks`.

    Returns:
        float32 ``[rows, groups]``, both; -inf and 0 for a group of which all is banned.
    """
    assert logits.dtype == torch.float32 and logits.is_contiguous() and logits.shape[1] > 0
    count, vocab = logits.shape
    groups = triton.cdiv(vocab, GROUP)
    tops, sums = torch.empty(2, count, groups, device=logits.device)
    if count:
        tile = block_of(groups, most=TILE)
        words = 0 if masks is None else masks.shape[1]
        _stats[(count, triton.cdiv(groups, tile))](
            logits, temperatures, logits if masks is None else masks, mask_of, tops, sums, vocab, words, groups,
            HEATED=temperatures is not None, MASKED=masks is not None, GROUP=GROUP, TILE=tile, num_warps=8,
        )  # fmt: skip
    return tops, sums

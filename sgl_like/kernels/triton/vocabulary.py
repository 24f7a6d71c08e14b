"""`kernels.vocabulary` in Triton: a row of logits as the maxima and sums of exponentials of its groups of tokens.

A program has some groups of one row, so the whole of a GPU reads the logits, once. What comes out for a group does not
depend on how many of them a program has.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import INTERPRETED, block_of

GROUP = tl.constexpr(128)
"""Tokens of a group."""
TILE = 1024 if INTERPRETED else 32
"""Groups of a program, at most."""


@triton.jit
def inverse_of(temperature):
    """What logits are multiplied by; 1 for temperature 0. Within bounds, so that no product with it is NaN."""
    return 1.0 / tl.minimum(tl.maximum(tl.where(temperature > 0.0, temperature, 1.0), 1e-30), 1e30)


@triton.jit
def mask_of_row(masks, mask_of, row, vocab, words, MASKED: tl.constexpr):
    """The packed mask of a row, and how many tokens it speaks of: all or none."""
    if MASKED:
        number = tl.load(mask_of + row).to(tl.int64)
        mask = masks + number * words
        known = tl.where(number >= 0, vocab, 0)
    else:
        mask = masks
        known = 0
    return mask, known


@triton.jit
def load_logits(logits, mask, token, vocab, known):
    """Logits of tokens of a row; -inf for what is beyond the vocabulary or banned."""
    word = tl.load(mask + token // 32, mask=token < known, other=-1)
    x = tl.load(logits + token, mask=token < vocab, other=float("-inf"))
    return tl.where(((word >> (token % 32)) & 1) == 0, float("-inf"), x)


@triton.jit
def _stats(
    logits, temperatures, masks, mask_of, tops, sums, vocab, words, groups,
    HEATED: tl.constexpr, MASKED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * TILE + tl.arange(0, TILE)
    token = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    mask, known = mask_of_row(masks, mask_of, r, vocab, words, MASKED)
    x = load_logits(logits + r * vocab, mask, token, vocab, known)
    top = tl.max(x, axis=1)
    below = x - tl.maximum(top, -3e38)[:, None]  # no NaN for a group of -inf
    if HEATED:
        below *= inverse_of(tl.load(temperatures + r))
    tl.store(tops + r * groups + group, top, mask=group < groups)
    tl.store(sums + r * groups + group, tl.sum(tl.exp(below), axis=1), mask=group < groups)


class Masks(NamedTuple):
    """Packed masks as kernels take them: int32 ``[n, words]``, and int32 ``[rows]``, the mask of each row, -1: none."""

    packed: Tensor
    of_row: Tensor
    words: int
    any: bool

    @classmethod
    def given(cls, count: int, masks: Tensor | None, of_row: Tensor | None, device: torch.device) -> Masks:
        """For so many rows; without `of_row` each has the mask of its number."""
        if masks is None:
            nothing = torch.empty(1, dtype=torch.int32, device=device)
            return cls(nothing, nothing, 0, False)
        if of_row is None:
            of_row = torch.arange(count, dtype=torch.int32, device=device)
        return cls(masks, of_row, masks.shape[1], True)


def group_stats(logits: Tensor, temperatures: Tensor | None, masks: Masks) -> tuple[Tensor, Tensor]:
    """Of each `GROUP` tokens of a row the greatest logit, and the sum of ``exp((logit - greatest) / temperature)``.

    Args:
        logits: float32 ``[rows, vocab]``, contiguous; -inf for banned tokens.
        temperatures: float32 ``[rows]``; 0, or None for all: 1.
        masks: what else is banned.

    Returns:
        float32 ``[rows, groups]``, both; -inf and 0 for a group of which all is banned.
    """
    assert logits.dtype == torch.float32 and logits.is_contiguous() and logits.shape[1] > 0
    count, vocab = logits.shape
    groups = triton.cdiv(vocab, GROUP.value)
    tops, sums = (torch.empty(count, groups, device=logits.device) for _ in range(2))
    if count:
        tile = block_of(groups, most=TILE)
        _stats[(count, triton.cdiv(groups, tile))](
            logits, temperatures, masks.packed, masks.of_row, tops, sums, vocab, masks.words, groups,
            HEATED=temperatures is not None, MASKED=masks.any, TILE=tile, num_warps=8,
        )  # fmt: skip
    return tops, sums
